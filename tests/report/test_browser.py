"""The page in a real browser: offline, without errors, and harmless with any file names."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from noneg.report import write_report
from noneg.report.notebook import run_in_notebook

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
HOSTILE = (
    "<img src=x onerror=window.hacked=1>.png",
    "'\" onmouseover=window.hacked=1 x=.png",
    "<svg onload=window.hacked=1>/<i>one</i>.png",
    # The slash of the path completes the end tag.
    "a</script><script>window.hacked=1</script>.png",
    "<!--<script>/`${window.hacked=1}`.png",
    "&lt;img src=x onerror=window.hacked=1&gt;.png",
)


_FAULTS = ("error", "warning")


class Watched:
    """A page, with its errors and requests."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.faults: list[str] = []
        self.requests: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on(
            "console",
            lambda each: self.faults.append(each.text) if each.type in _FAULTS else None,
        )
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path: Path) -> None:
        self.page.goto(path.resolve().as_uri())
        self.page.wait_for_function("window.noneg && window.noneg.ready")
        # Bokeh draws only after it has measured the page.
        self.page.wait_for_timeout(300)

    def points(self) -> list[list[float]]:
        """Where the map's points are, in pixels of the window."""
        return self.page.evaluate(
            """() => {
                const root = Bokeh.documents[0].get_model_by_name("map-figure");
                const view = Bokeh.index.find_one(root);
                const box = view.canvas_view.el.getBoundingClientRect();
                const data = Bokeh.documents[0].get_model_by_name("map").data;
                const xs = view.frame.x_scale.v_compute(data.x);
                const ys = view.frame.y_scale.v_compute(data.y);
                return [...xs].map((x, i) => [box.left + x, box.top + ys[i]]);
            }"""
        )


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        context = running.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("browser"),
            executable_path=CHROMIUM,
            args=list(ARGUMENTS),
            viewport={"width": 1280, "height": 900},
        )
        yield context
        context.close()


@pytest.fixture
def watched(browser: Any) -> Iterator[Watched]:
    page = browser.new_page()
    yield Watched(page)
    page.close()


@pytest.fixture
def report(make_run: Callable[..., Path], write_images: Callable[[dict[str, int]], Path]) -> Path:
    names = {f"plain/{number:02}.png": number for number in range(20)}
    names |= {name: 50 + number for number, name in enumerate(HOSTILE)}
    run = make_run("<img src=x onerror=window.hacked=1>", str(write_images(names)))
    return write_report([run])


def test_the_page_is_quiet_offline_and_harmless(watched: Watched, report: Path) -> None:
    page = watched.page
    watched.open(report)
    map_place = page.locator(".map-place")
    map_place.scroll_into_view_if_needed()
    shown = set()
    for x, y in watched.points():
        page.mouse.move(x, y)
        page.wait_for_function("!document.querySelector('#map-hover').hidden")
        shown.add(page.locator("#map-hover p").first.inner_text())
    # Points may cover each other, but most names were shown, as text.
    assert len(shown) >= 20
    assert any("onerror" in name for name in shown)
    assert (
        page.locator("#map-hover .picture")
        .evaluate("each => getComputedStyle(each).backgroundImage.slice(0, 15)")
        .startswith('url("data:image')
    )
    for grouping in page.locator("#map-color option").all_inner_texts():
        page.select_option("#map-color", label=grouping)
        for button in page.locator("#map-legend button").all():
            button.click()
    page.locator("main").hover(position={"x": 5, "y": 5})
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img, main svg, main i > *").count() == 0
    assert watched.faults == []
    assert watched.requests
    assert {url.split(":")[0] for url in watched.requests} <= {"file", "data", "blob"}
    assert sum(url.startswith("file:") for url in watched.requests) == 1


def test_a_notebook_shows_the_report_in_a_frame(
    watched: Watched, report: Path, tmp_path: Path
) -> None:
    html = run_in_notebook(report.parent, "healthy", "It <b>works</b>.")
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><title>mine</title><body>{html}</body>", encoding="utf-8")
    page = watched.page
    page.goto(notebook.as_uri())
    assert "It <b>works</b>." in page.locator("p").first.inner_text()
    frame = page.frame_locator("iframe")
    frame.locator("#map-figure, .map-place").first.wait_for()
    # Bokeh has drawn within the frame, and the frame cannot reach the notebook.
    frame.locator("canvas").first.wait_for(state="attached")
    reached = page.frames[1].evaluate(
        "() => { try { return parent.document.title } catch { return null } }"
    )
    assert reached is None
    assert page.evaluate("window.hacked") is None
    assert watched.faults == []
    assert "There is no report" in run_in_notebook(tmp_path, "healthy", "")


def test_a_box_selects_and_shows_the_pictures(watched: Watched, report: Path) -> None:
    page = watched.page
    watched.open(report)
    page.locator(".map-place").scroll_into_view_if_needed()
    points = watched.points()
    left, right = min(x for x, _ in points) - 8, max(x for x, _ in points) + 8
    top, bottom = min(y for _, y in points) - 8, max(y for _, y in points) + 8
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move(right, bottom, steps=4)
    page.mouse.up()
    page.wait_for_function("document.querySelectorAll('#map-pictures .picture').length > 0")
    assert page.locator("#map-count").inner_text().startswith("26 images selected: ")
    assert page.locator("#map-pictures .picture").count() == 26
    # A group's button selects the group; pressed again, it clears the selection.
    first = page.locator("#map-legend button").first
    first.click()
    size = int(first.locator("small").inner_text())
    assert page.locator("#map-pictures .picture").count() == size
    assert first.get_attribute("aria-pressed") == "true"
    first.click()
    assert page.locator("#map-count").inner_text().startswith("Nothing selected")
    assert watched.faults == []


def test_the_other_projection_moves_the_points(watched: Watched, report: Path) -> None:
    watched.open(report)
    before = watched.points()
    watched.page.get_by_text("PCA", exact=True).click()
    watched.page.wait_for_timeout(200)
    assert watched.points() != before


def test_pointing_reads_every_curve_at_that_step(watched: Watched, report: Path) -> None:
    page = watched.page
    watched.open(report)
    canvas = page.locator("#training .canvas").first
    canvas.scroll_into_view_if_needed()
    assert page.locator('[data-line="loss "]').inner_text() == "0.250"
    box = canvas.bounding_box()
    # The range is padded by 2 % of its length in all; the left axis takes some pixels.
    page.mouse.move(box["x"] + 50, box["y"] + 60)
    page.wait_for_function("document.querySelector('#training .at').textContent !== ''")
    assert page.locator('[data-line="loss "]').inner_text() == "3"
    assert page.locator('[data-line="pull "]').inner_text() == "1"
    assert page.locator("#training .at").inner_text() == "at step 1"


def test_a_phone_scrolls_in_one_direction_and_the_scheme_is_followed(
    watched: Watched, report: Path
) -> None:
    page = watched.page
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark")
    watched.open(report)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    line = "Bokeh.documents[0].get_model_by_name('map-figure').toolbar && [...Bokeh.documents[0]"
    line += "._all_models.values()].find(each => each.type === 'LinearAxis').major_label_text_color"
    in_dark = page.evaluate(line)
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"JSON.stringify({line}) !== {in_dark!r}.replaceAll(\"'\", '\"')")
    assert page.evaluate(line) != in_dark
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(246, 247, 248)"
    assert watched.faults == []


def test_every_drawing_has_a_name(watched: Watched, report: Path) -> None:
    watched.open(report)
    labels = watched.page.locator("[role=img]").evaluate_all(
        "each => each.map(one => one.getAttribute('aria-label') ?? '')"
    )
    assert len(labels) > 50
    assert all(labels)
    assert any(label.startswith("Loss over steps: Loss from 3 to 0.250") for label in labels)
