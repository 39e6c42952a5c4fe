"use strict";
// The interactive parts of the page. Names are only set as text, so that none can become a tag.
(() => {
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const parsed = (id) => JSON.parse(document.getElementById(id)?.textContent ?? "null");
  const make = (tag, text, name) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (name) element.className = name;
    return element;
  };
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const inTheDark = parsed("in-the-dark") ?? {};
  const tone = (color) => (dark.matches && inTheDark[color]) || color;

  // The colors of what Bokeh draws, when the color scheme changes.
  const recolor = (bokeh) => {
    const other = Object.entries(inTheDark).map((pair) => (dark.matches ? pair : pair.reverse()));
    const colors = Object.fromEntries(other);
    for (const model of bokeh._all_models.values()) {
      for (const name of Object.keys(model.properties)) {
        if (!name.endsWith("_color")) continue;
        let value = null;
        try { value = model[name]; } catch { continue; }
        if (typeof value === "string" && colors[value]) model[name] = colors[value];
        else if (value && colors[value.value]) model[name] = { value: colors[value.value] };
      }
    }
  };

  const format = (value) => {
    const size = Math.abs(value), minus = value < 0 ? "\u2212" : "";
    if (Number.isInteger(value) && size < 1e6) return minus + size.toLocaleString("en");
    if (size < 1e-3 || size >= 1e6) return minus + size.toExponential(2).replace(/\.?0*e\+?/, "e");
    if (size >= 999.5) return minus + Math.round(size).toLocaleString("en");
    const rounded = Number(size.toPrecision(3));
    return minus + rounded.toFixed(Math.max(0, 2 - Math.floor(Math.log10(rounded))));
  };

  // Ticks have no trailing zeros: 0.50 is 0.5.
  const tick = (value) => format(Number(value.toPrecision(3))).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");

  // The number of every line at the x that the user points at, or at its last point.
  let lines = [];
  const read = (x) => {
    let at = null;
    for (const { element, xs, ys } of lines) {
      let nearest = xs.length - 1;
      if (x !== null) {
        for (let i = 0; i < xs.length; i++) if (Math.abs(xs[i] - x) < Math.abs(xs[nearest] - x)) nearest = i;
        if (at === null || Math.abs(xs[nearest] - x) < Math.abs(at - x)) at = xs[nearest];
      }
      if (nearest >= 0) element.textContent = format(ys[nearest]);
    }
    for (const element of all("#training .at, #meters .at, #curves .at")) {
      element.textContent = x === null || at === null ? "" : `at ${document.body.dataset.over ?? "step"} ${format(at)}`;
    }
  };

  // The map.
  const map = parsed("map-data");
  let source = null, grouping = 0;
  const groupColor = (number) => tone(map.colors[number] ?? map.other);
  const picture = (index) => {
    const element = make("span", undefined, `picture ${map.atlas}`);
    element.style.setProperty("--x", index % map.columns);
    element.style.setProperty("--y", Math.floor(index / map.columns));
    element.setAttribute("role", "img");
    element.setAttribute("aria-label", map.names[index]);
    element.title = map.names[index];
    return element;
  };
  const groupName = (index) => {
    const group = map.groups[grouping];
    return group.names[group.members[index]];
  };
  const hover = ({ index, geometry }) => {
    const box = one("#map-hover"), found = index.indices[0];
    box.hidden = found === undefined;
    if (box.hidden) return;
    box.replaceChildren(picture(found), make("p", map.names[found]), make("p", groupName(found)));
    const place = box.parentElement, side = geometry.sx > place.clientWidth / 2 ? -box.offsetWidth - 14 : 14;
    box.style.left = `${Math.max(0, Math.min(geometry.sx + side, place.clientWidth - box.offsetWidth))}px`;
    box.style.top = `${Math.max(0, Math.min(geometry.sy - 40, place.clientHeight - box.offsetHeight))}px`;
  };
  const most = 96;
  const select = (indices) => {
    const group = map.groups[grouping], sizes = new Map();
    for (const index of indices) sizes.set(group.members[index], (sizes.get(group.members[index]) ?? 0) + 1);
    const parts = [...sizes].sort((a, b) => b[1] - a[1]);
    const named = parts.slice(0, 6).map(([number, size]) => `${group.names[number]} ${size.toLocaleString("en")}`);
    if (parts.length > 6) named.push(`${parts.length - 6} more`);
    const images = indices.length === 1 ? "image" : "images";
    one("#map-count").textContent = indices.length === 0
      ? "Nothing selected. Drag over the map, or press a group."
      : `${indices.length.toLocaleString("en")} ${images} selected: ${named.join(", ")}.` +
        (indices.length > most ? ` The first ${most} are shown.` : "");
    one("#map-pictures").replaceChildren(...indices.slice(0, most).map((index) => {
      const cell = make("div", undefined, "cell");
      cell.append(picture(index), make("small", map.names[index], "name"));
      return cell;
    }));
    const whole = indices.length > 0 && sizes.size === 1 ? parts[0][0] : -1;
    all("#map-legend button").forEach((button) => {
      const members = button.members ?? [];
      const pressed = members.length === indices.length && members.length > 0 &&
        (Number(button.dataset.group) === whole || (button.dataset.group === "other" && members[0] === indices[0]));
      button.setAttribute("aria-pressed", pressed);
    });
  };
  const legend = () => {
    const group = map.groups[grouping], shown = map.colors.length;
    const members = group.names.map(() => []);
    group.members.forEach((number, index) => members[number].push(index));
    const entries = group.names.slice(0, shown).map((name, number) => [name, members[number], groupColor(number), number]);
    if (group.names.length > shown) {
      entries.push([`${group.names.length - shown} others`, members.slice(shown).flat().sort((a, b) => a - b), tone(map.other), "other"]);
    }
    one("#map-legend").replaceChildren(...entries.map(([name, whose, color, number]) => {
      const button = make("button", name);
      button.type = "button";
      button.members = whose;
      button.dataset.group = number;
      button.style.setProperty("--dot", color);
      button.setAttribute("aria-pressed", "false");
      button.append(make("small", whose.length.toLocaleString("en")));
      button.addEventListener("click", () => {
        source.selected.indices = button.getAttribute("aria-pressed") === "true" ? [] : whose;
      });
      return button;
    }));
  };
  const paint = () => {
    source.data = { ...source.data, color: map.groups[grouping].members.map(groupColor) };
    legend();
    select(source.selected.indices);
  };
  const projection = (name) => {
    source.data = { ...source.data, x: source.data[`${name}_x`], y: source.data[`${name}_y`] };
    one(".map .canvas").title = map.notes[name];
  };

  window.noneg = { tick, read, hover, select, ready: false };
  const start = async () => {
    const text = document.getElementById("drawing")?.textContent;
    if (!text) return;
    const drawing = JSON.parse(text.replace(/"#[0-9a-f]{6}"/g, (quoted) => `"${tone(quoted.slice(1, -1))}"`));
    await Bokeh.embed.embed_items(drawing.documents, drawing.items);
    const bokeh = Bokeh.documents[0];
    lines = all("[data-line]").map((element) => {
      const data = bokeh.get_model_by_name(`line ${element.dataset.line}`)?.data;
      return data && { element, xs: data.x, ys: data.y };
    }).filter(Boolean);
    if (map) {
      source = bokeh.get_model_by_name("map");
      projection("tsne");
      paint();
      one("#map-color").addEventListener("change", (event) => { grouping = Number(event.target.value); paint(); });
      all("[name=projection]").forEach((radio) => radio.addEventListener("change", () => projection(radio.value)));
      one(".map-place").addEventListener("mouseleave", () => { one("#map-hover").hidden = true; });
    }
    dark.addEventListener("change", () => { recolor(bokeh); if (map) paint(); });
    window.noneg.ready = true;
  };
  start();
})();
