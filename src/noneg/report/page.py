"""One run -> one HTML file."""

import json
from collections.abc import Callable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from noneg.encoder import Encoder, load
from noneg.errors import NonegError
from noneg.evaluation.factors import read_factors
from noneg.evaluation.scores import untrained
from noneg.images import Images
from noneg.records.contents import RunFiles, read_run
from noneg.report.canvases import Canvases, data_script
from noneg.report.colors import IN_THE_DARK, category_css
from noneg.report.html import Section
from noneg.report.map import cluster, groupings, project
from noneg.report.pictures import Atlas, make_atlas
from noneg.report.sample import Sample, embed_sample, find_images
from noneg.report.sections.about import about_section
from noneg.report.sections.curves import meters_section, training_section
from noneg.report.sections.factors import factors_section
from noneg.report.sections.map import map_section
from noneg.report.sections.neighbors import find_duplicates, find_neighbors
from noneg.report.sections.pictured import duplicates_section, neighbors_section, views_section
from noneg.report.sections.spectrum import spectrum_section
from noneg.report.sections.verdict import facts_html, scores_html, verdict_html
from noneg.training.config import load_config

Made = TypeVar("Made")


def one_run(directory: Path, *, images: Images | None, most: int, seed: int, progress: bool) -> str:
    """The page of a run, as HTML; parts that cannot be made are left out, and it says why.

    Raises:
        NonegError: the directory is not a run's.
    """
    run = read_run(directory)
    canvases = Canvases()
    failures: list[str] = []
    with tqdm(total=6, desc="report", disable=not progress) as bar:

        def step(name: str) -> None:
            bar.set_description(f"report: {name}")
            bar.update()

        step("embedding")
        encoder = _attempt(lambda: load(directory), "the encoder", failures)
        sample: Sample | None = None
        if encoder is not None:
            found = images or _attempt(lambda: find_images(run, encoder), "the images", failures)
            if found is not None:
                images = found
                sample = _attempt(
                    lambda: embed_sample(found, encoder, most=most, seed=seed),
                    "the embeddings",
                    failures,
                )
        step("views")
        views: tuple[Section, Atlas] | None = None
        if images is not None:
            views = _attempt(lambda: _views(run, images), "the views", failures)
        sections = [
            training_section(run, canvases),
            meters_section(run, canvases),
            spectrum_section(run, sample, canvases),
        ]
        atlases = []
        if sample is not None and encoder is not None and len(sample) > 2:
            pictured, atlas = _pictured(sample, encoder, run, canvases, seed, step)
            sections += pictured
            atlases.append(atlas)
        if views is not None:
            sections.append(views[0])
            atlases.append(views[1])
        sections.append(about_section(run, encoder.info if encoder is not None else None))
        step("writing")
    total = sample.total if sample is not None else _images_in(run, encoder)
    method = str(run.settings.get("method", encoder.info.method if encoder is not None else ""))
    backbone = str(run.settings.get("backbone", ""))
    subtitle = ", ".join(escape(each) for each in (method, backbone) if each)
    top = (
        f'<header><p class="brand">noneg report</p><h1>{escape(run.name)}</h1>'
        f'<p class="subtitle">{subtitle}</p></header>'
        f'<div class="top">{verdict_html(run)}{scores_html(run)}</div>{facts_html(run, total)}'
        f"{_not_shown(failures)}"
    )
    return document(run.name, top, [each for each in sections if each], canvases, atlases)


def _pictured(
    sample: Sample,
    encoder: Encoder,
    run: RunFiles,
    canvases: Canvases,
    seed: int,
    step: Callable[[str], None],
) -> tuple[list[Section | None], Atlas]:
    """All that needs images: map, neighbors, duplicates, factors."""
    step("map")
    projections = project(sample.directions, seed=seed)
    clusters = cluster(projections.components, seed=seed)
    atlas = make_atlas("image", sample.pixels)
    step("neighbors")
    neighbors = find_neighbors(sample.directions)
    sections: list[Section | None] = [
        map_section(sample, atlas, projections, groupings(sample, clusters), canvases),
        neighbors_section(sample, neighbors, clusters, atlas),
        duplicates_section(sample, find_duplicates(sample, neighbors), neighbors, atlas),
    ]
    step("factors")
    if sample.factors:
        start = untrained(encoder.info, seed=int(run.settings.get("seed", 0)))
        readouts = read_factors(
            sample.factors,
            sample.embeddings,
            start.embed_pixels(sample.pixels),
            labels=sample.labels,
            seed=seed,
        )
        if readouts:
            sections.append(factors_section(readouts))
    return sections, atlas


def _views(run: RunFiles, images: Images) -> tuple[Section, Atlas]:
    return views_section(images, load_config(run.directory / "config.yaml"))


def _attempt(make: Callable[[], Made], what: str, failures: list[str]) -> Made | None:
    try:
        return make()
    except NonegError as error:
        failures.append(f"{what} ({error})")
        return None


def _images_in(run: RunFiles, encoder: Encoder | None) -> int | None:
    data = run.about.get("data")
    if not isinstance(data, dict):
        data = encoder.info.data if encoder is not None else {}
    images = data.get("images")
    return images if isinstance(images, int) else None


def _not_shown(failures: Sequence[str]) -> str:
    if not failures:
        return ""
    return f'<p class="missing" role="note">Not shown: {escape("; ".join(failures))}.</p>'


def document(
    title: str,
    top: str,
    sections: Sequence[Section],
    canvases: Canvases,
    atlases: Sequence[Atlas],
) -> str:
    """A whole HTML file that asks for nothing outside itself."""
    here = files("noneg.report")
    css = (here / "page.css").read_text(encoding="utf-8")
    script = (here / "page.js").read_text(encoding="utf-8")
    css += category_css() + "".join(atlas.css() for atlas in atlases)
    links = "".join(
        f'<a href="#{each.identity}">{each.identity.capitalize()}</a>' for each in sections
    )
    body = "".join(each.html() for each in sections)
    dark = data_script("in-the-dark", json.dumps(IN_THE_DARK))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        # Nothing from outside, whatever a name may try. Bokeh's callbacks are built from text.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data: '
        "blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'\">"
        f'<title>{escape(title)} \N{MIDDLE DOT} noneg</title><link rel="icon" href="data:,">'
        f"<style>{css}</style></head><body>"
        f'<main>{top}<nav aria-label="Sections">{links}</nav>{body}</main>'
        f"{dark}{canvases.scripts()}<script>{script}</script></body></html>\n"
    )
