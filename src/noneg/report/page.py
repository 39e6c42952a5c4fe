"""The page of one run, from its files, its encoder and its images."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import ParamSpec, TypeVar

from noneg.encoder import Encoder, load
from noneg.errors import NonegError
from noneg.evaluation.factors import read_factors
from noneg.evaluation.scores import untrained
from noneg.images import Images
from noneg.progress import progress_bar
from noneg.records.contents import RunFiles, read_run
from noneg.report.canvases import Canvases
from noneg.report.html import Section, document
from noneg.report.pictures import Atlas, make_atlas
from noneg.report.sample import Sample, embed_sample, find_images
from noneg.report.sections.about import about_section
from noneg.report.sections.curves import training_section
from noneg.report.sections.duplicates import (
    MOST_OUTLIERS,
    duplicates_section,
    find_duplicates,
    find_outliers,
)
from noneg.report.sections.factors import factors_section
from noneg.report.sections.labels import labels_section
from noneg.report.sections.map import cluster, groupings, map_section, project
from noneg.report.sections.meters import meters_section
from noneg.report.sections.neighbors import find_neighbors, neighbors_section
from noneg.report.sections.spectrum import spectrum_section
from noneg.report.sections.verdict import facts_html, scores_html, verdict_html
from noneg.report.sections.views import views_section

Given = ParamSpec("Given")
Made = TypeVar("Made")


def one_run(directory: Path, *, images: Images | None, most: int, seed: int, progress: bool) -> str:
    """The page of a run, as HTML. It leaves out the parts that cannot be made, and says why.

    Raises:
        NonegError: the directory holds no run.
    """
    run = read_run(directory)
    failures: list[str] = []
    canvases = Canvases()
    atlases: list[Atlas] = []
    with progress_bar(total=5, desc="report", unit="parts", shown=progress) as bar:

        def begin(part: str) -> None:
            bar.set_description(f"report: {part}")
            bar.update()

        begin("embedding")
        encoder = _attempt(failures, "the encoder", load, directory)
        sample: Sample | None = None
        if encoder is not None:
            images = images or _attempt(failures, "the images", find_images, run, encoder)
            if images is not None:
                sample = _attempt(
                    failures, "the embeddings", embed_sample, images, encoder, most=most, seed=seed
                )

        sections = [
            training_section(run, canvases),
            meters_section(run, canvases),
            spectrum_section(run, sample, canvases),
            labels_section(run, canvases),
        ]

        if sample is not None and encoder is not None and len(sample) > 2:
            begin("map")
            projections = project(sample.directions, seed=seed)
            clusters = cluster(projections.components, seed=seed)
            groups = groupings(sample, clusters)
            atlas = make_atlas("image", sample.pixels)
            atlases.append(atlas)
            sections.append(map_section(sample, atlas, projections, groups, canvases))

            begin("neighbors")
            neighbors = find_neighbors(sample.directions)
            duplicates = find_duplicates(sample, neighbors)
            outliers = find_outliers(neighbors, MOST_OUTLIERS)
            sections.append(neighbors_section(sample, neighbors, clusters, outliers, atlas))
            sections.append(duplicates_section(sample, duplicates, neighbors, outliers, atlas))

            begin("factors")
            sections.append(_factors(sample, encoder, run, seed))

        if images is not None:
            begin("views")
            views = _attempt(failures, "the views", views_section, images, run.settings)
            if views is not None:
                sections.append(views[0])
                atlases.append(views[1])

        sections.append(about_section(run, encoder.info if encoder is not None else None))

    return document(
        run.name,
        _top(run, encoder, sample, failures),
        [section for section in sections if section is not None],
        scripts=canvases.scripts(),
        css="".join(atlas.css() for atlas in atlases),
    )


def _attempt(
    failures: list[str],
    what: str,
    make: Callable[Given, Made],
    *args: Given.args,
    **settings: Given.kwargs,
) -> Made | None:
    """What `make` returns; None if it fails, with the reason in `failures`."""
    try:
        return make(*args, **settings)
    except NonegError as error:
        failures.append(f"{what} ({error})")
        return None


def _factors(sample: Sample, encoder: Encoder, run: RunFiles, seed: int) -> Section | None:
    """Only for images that were drawn from known factors."""
    if not sample.factors:
        return None
    before = untrained(encoder, seed=int(run.settings.get("seed", 0)))
    readouts = read_factors(
        sample.factors,
        sample.embeddings,
        before.embed_pixels(sample.pixels),
        labels=sample.labels,
        seed=seed,
    )
    return factors_section(readouts) if readouts else None


def _top(
    run: RunFiles, encoder: Encoder | None, sample: Sample | None, failures: Sequence[str]
) -> str:
    """Title, verdict, scores, a few numbers, and what the page could not show."""
    method = run.settings.get("method", encoder.info.method if encoder is not None else "")
    backbone = run.settings.get("backbone", "")
    subtitle = ", ".join(escape(str(each)) for each in (method, backbone) if each)
    total = sample.total if sample is not None else _recorded_images(run, encoder)
    left_out = (
        f'<p class="missing" role="note">Not shown: {escape("; ".join(failures))}.</p>'
        if failures
        else ""
    )
    return (
        f'<header><p class="brand">noneg report</p><h1>{escape(run.name)}</h1>'
        f'<p class="subtitle">{subtitle}</p></header>'
        f'<div class="top">{verdict_html(run)}{scores_html(run)}</div>{facts_html(run, total)}'
        f"{left_out}"
    )


def _recorded_images(run: RunFiles, encoder: Encoder | None) -> int | None:
    """The number of images in run.json, or in the encoder's description."""
    data = run.provenance.get("data")
    if not isinstance(data, dict):
        data = encoder.info.data if encoder is not None else {}
    images = data.get("images")
    return images if isinstance(images, int) else None
