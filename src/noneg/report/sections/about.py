"""Where the run comes from: settings, data, versions, hardware, and the command that repeats it."""

import shlex
from collections.abc import Mapping
from html import escape
from typing import Any

from noneg.encoder import EncoderInfo
from noneg.records.contents import RunFiles
from noneg.report.html import Section
from noneg.report.numbers import duration


def about_section(run: RunFiles, info: EncoderInfo | None) -> Section:
    """All of it, in tables."""
    repeat = f"noneg train --config {shlex.quote(str(run.directory / 'config.yaml'))}"
    given = run.about.get("command")
    command = f"<p>Started as</p>{_code(str(given))}" if given else ""
    if run.settings:
        command += f"<p>To repeat it</p>{_code(repeat)}"
    facts: dict[str, Any] = {}
    if (started := run.about.get("started")) is not None:
        facts["started"] = str(started).replace("T", " ")
    if run.seconds is not None:
        facts["training"] = duration(run.seconds)
    if (hardware := run.about.get("hardware")) is not None:
        facts["hardware"] = hardware
    versions = run.about.get("versions")
    if isinstance(versions, Mapping):
        facts.update({str(name): version for name, version in versions.items()})
    elif info is not None:
        facts["noneg"] = info.noneg
    data = run.about.get("data")
    if not isinstance(data, Mapping):
        data = info.data if info is not None else {}
    tables = [
        ("Images", dict(data)),
        ("Machine", facts),
        ("Encoder", _encoder(info) if info is not None else {}),
    ]
    blocks = "".join(
        f"<div><h3>{title}</h3>{_table(values)}</div>" for title, values in tables if values
    )
    missing = (
        f'<p class="missing">Not in this run\'s directory: {escape("; ".join(run.missing))}.</p>'
        if run.missing
        else ""
    )
    settings = (
        f"<details><summary>Every setting (config.yaml)</summary>{_table(flat(run.settings))}"
        "</details>"
        if run.settings
        else ""
    )
    body = f'{missing}{command}<div class="thirds">{blocks}</div>{settings}'
    return Section("about", "This run", "", body)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names, as the command line has them."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = value
    return found


def _encoder(info: EncoderInfo) -> dict[str, Any]:
    return {
        "backbone": info.backbone,
        "features": info.features,
        "images": f"{info.channels} x {info.size} x {info.size}",
        "made": info.created,
    }


def _code(text: str) -> str:
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'


def _table(values: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(str(name).replace("_", " "))}</th>'
        f"<td>{escape(_shown(value))}</td></tr>"
        for name, value in values.items()
    )
    return f'<table class="plain">{rows}</table>'


def _shown(value: Any) -> str:
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    return str(value)
