"""The map: embeddings in two dimensions, colored by label, folder or cluster."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import PurePosixPath
from typing import final

import numpy as np
from bokeh.models import ColumnDataSource, CustomJS, HoverTool
from jaxtyping import Float32, Int64
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from noneg.collection.plane import ITERATIONS, lay_out
from noneg.report.canvases import Canvases
from noneg.report.colors import CATEGORIES, OTHER
from noneg.report.html import Section, data_script
from noneg.report.numbers import count, percent
from noneg.report.pictures import Atlas
from noneg.report.sample import Sample

HEIGHT = 560
COMPONENTS = 50
CLUSTERS = 10


@final
@dataclass(frozen=True, eq=False)
class Grouping:
    """One way to color the map.

    Attributes:
        title: what the groups are, such as "label".
        names: of the groups, largest first.
        members: the group of each image, an index into `names` [n].
    """

    title: str
    names: tuple[str, ...]
    members: Int64[np.ndarray, " n"]


@final
@dataclass(frozen=True, eq=False)
class Projections:
    """Two maps of the same images.

    Attributes:
        tsne: [n, 2]; near images are similar, but axes and distances between groups mean nothing.
        pca: [n, 2]; the first two principal components.
        explained: the share of the variance that these two hold, in [0, 1].
        components: the first principal components [n, m], m at most `COMPONENTS`.
    """

    tsne: Float32[np.ndarray, "n 2"]
    pca: Float32[np.ndarray, "n 2"]
    explained: float
    components: Float32[np.ndarray, "n m"]


def project(directions: Float32[np.ndarray, "n width"], *, seed: int) -> Projections:
    """PCA of centered embeddings of length 1, and t-SNE of their first 50 principal components.

    See `noneg.collection.plane.lay_out`.
    """
    n, width = directions.shape
    if not directions.any():
        # All embeddings are equal.
        nowhere = np.zeros((n, 2), dtype=np.float32)
        return Projections(nowhere, nowhere, 0.0, nowhere)
    components = PCA(min(COMPONENTS, n, width), random_state=seed)
    reduced = components.fit_transform(directions).astype(np.float32)
    plane = np.zeros((n, 2), dtype=np.float32)
    plane[:, : min(2, reduced.shape[1])] = reduced[:, :2]
    explained = float(components.explained_variance_ratio_[:2].sum())
    if n < 5:
        return Projections(plane, plane, explained, reduced)
    return Projections(lay_out(reduced, seed), plane, explained, reduced)


def cluster(components: Float32[np.ndarray, "n m"], *, seed: int) -> Int64[np.ndarray, " n"]:
    """Ten clusters by k-means, fewer if there are fewer distinct images."""
    distinct = len(np.unique(components, axis=0))
    number = min(CLUSTERS, distinct)
    found = KMeans(number, n_init=4, random_state=seed).fit_predict(components)
    members: Int64[np.ndarray, " n"] = found.astype(np.int64)
    return members


def groupings(sample: Sample, clusters: Int64[np.ndarray, " n"]) -> list[Grouping]:
    """By label, by folder if folders differ from labels, and by cluster."""
    found = []
    if sample.labels is not None:
        found.append(
            _grouped("label", [_class_name(sample, each) for each in sample.labels.tolist()])
        )
    folders = [str(PurePosixPath(name).parent) for name in sample.names]
    by_folder = _grouped("folder", folders)
    if len(by_folder.names) > 1 and not (found and _same(found[0], by_folder)):
        found.append(by_folder)
    by_cluster = _grouped("cluster", [str(each) for each in clusters])
    # Numbered by size; k-means' own numbers mean nothing.
    names = tuple(f"cluster {number}" for number in range(1, len(by_cluster.names) + 1))
    found.append(Grouping("cluster", names, by_cluster.members))
    return found


def _class_name(sample: Sample, label: int) -> str:
    if sample.classes is None or not 0 <= label < len(sample.classes):
        return f"label {label}"
    return sample.classes[label]


def _grouped(title: str, keys: list[str]) -> Grouping:
    sizes = Counter(keys)
    names = sorted(sizes, key=lambda name: (-sizes[name], name))
    number = {name: position for position, name in enumerate(names)}
    members = np.array([number[key] for key in keys], dtype=np.int64)
    return Grouping(title, tuple(names), members)


def _same(one: Grouping, other: Grouping) -> bool:
    """Whether both make the same groups, under any names."""
    together = len(np.unique(np.stack([one.members, other.members]), axis=1).T)
    return together == len(one.names) == len(other.names)


def map_section(
    sample: Sample,
    atlas: Atlas,
    projections: Projections,
    groups: Sequence[Grouping],
    canvases: Canvases,
) -> Section:
    """The map with its controls, and below it the selected images."""
    first = groups[0]
    colors = np.array([*CATEGORIES, OTHER])
    source = ColumnDataSource(
        {
            "x": projections.tsne[:, 0],
            "y": projections.tsne[:, 1],
            "tsne_x": projections.tsne[:, 0],
            "tsne_y": projections.tsne[:, 1],
            "pca_x": projections.pca[:, 0],
            "pca_y": projections.pca[:, 1],
            "color": colors[np.minimum(first.members, len(CATEGORIES))].tolist(),
        },
        name="map",
    )
    plot = canvases.empty(
        HEIGHT,
        tools="pan,wheel_zoom,box_select,lasso_select,tap,reset",
        active_drag="box_select",
        # A page that scrolls past the map should not zoom it.
        active_scroll=None,
        name="map-figure",
        match_aspect=True,
    )
    # As high as its element, which is lower on a phone.
    plot.sizing_mode = "stretch_both"
    plot.toolbar_location = "above"
    plot.toolbar.logo = None
    plot.axis.visible = False
    plot.grid.visible = False
    size = 7 if len(sample) <= 1_000 else 5.5 if len(sample) <= 3_000 else 4.5
    points = plot.scatter(
        "x",
        "y",
        source=source,
        size=size,
        color="color",
        line_color=None,
        alpha=0.8,
        nonselection_alpha=0.1,
        selection_alpha=1.0,
    )
    plot.add_tools(
        HoverTool(
            renderers=[points],
            tooltips=None,
            callback=CustomJS(code="window.noneg.hover(cb_data)"),
        )
    )
    source.selected.js_on_change("indices", CustomJS(code="window.noneg.select(cb_obj.indices)"))
    options = "".join(
        f'<option value="{number}">{escape(group.title)}</option>'
        for number, group in enumerate(groups)
    )
    label = (
        f"Map of {count(len(sample), 'embedding')} in two dimensions, colored by {first.title}. "
        "The buttons below show the images of a group."
    )
    body = (
        '<div class="controls"><label>Color by <select id="map-color">'
        f"{options}</select></label>"
        '<fieldset class="toggle"><legend>Projection</legend>'
        '<label><input type="radio" name="projection" value="tsne" checked><span>t-SNE</span>'
        '</label><label><input type="radio" name="projection" value="pca"><span>PCA</span></label>'
        "</fieldset></div>"
        f'<figure class="panel map"><div class="map-place">{canvases.place(plot, label)}'
        '<div id="map-hover" hidden></div></div>'
        '<figcaption><div id="map-legend" class="chips" role="group" '
        'aria-label="Groups; press one to select its images"></div></figcaption></figure>'
        '<div class="selection"><p id="map-count" aria-live="polite">Nothing selected. Drag over '
        "the map, or press a group.</p>"
        '<div id="map-pictures" class="pictures"></div></div>'
        f"{_data(sample, atlas, groups, projections)}"
    )
    introduction = (
        f"{sample.share[:1].upper()}{sample.share[1:]}. Point at one to see it. Drag a box, or "
        "choose the lasso, to see several. In t-SNE, images near each other have similar "
        "embeddings; the distances between groups mean nothing."
    )
    return Section("map", "Map of the embeddings", introduction, body)


def _data(
    sample: Sample, atlas: Atlas, groups: Sequence[Grouping], projections: Projections
) -> str:
    table = {
        "names": sample.names,
        "columns": atlas.columns,
        "atlas": atlas.name,
        "colors": CATEGORIES,
        "other": OTHER,
        "groups": [
            {"title": group.title, "names": group.names, "members": group.members.tolist()}
            for group in groups
        ],
        "notes": {
            "tsne": f"t-SNE of up to {COMPONENTS} principal components, {ITERATIONS} iterations",
            "pca": f"The first two principal components: {percent(projections.explained)} of the "
            "variance",
        },
    }
    return data_script("map-data", json.dumps(table, separators=(",", ":"), allow_nan=False))
