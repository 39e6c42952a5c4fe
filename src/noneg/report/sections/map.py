"""The map as a figure: colors, pictures on hover, and what is selected."""

import json
from collections.abc import Sequence
from html import escape

import numpy as np
from bokeh.models import ColumnDataSource, CustomJS, HoverTool

from noneg.report.canvases import Canvases, data_script
from noneg.report.colors import CATEGORIES, OTHER
from noneg.report.html import Section
from noneg.report.map import ITERATIONS, Grouping, Projections
from noneg.report.numbers import count, percent
from noneg.report.pictures import Atlas
from noneg.report.sample import Sample

HEIGHT = 560


def map_section(
    sample: Sample,
    atlas: Atlas,
    projections: Projections,
    groups: Sequence[Grouping],
    canvases: Canvases,
) -> Section:
    """The map, its controls, and the place for selected pictures."""
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
    # As high as its place, which is lower on a phone.
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
        "Use the buttons below to show a group's pictures."
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
        '<div class="selection"><p id="map-count" aria-live="polite">Nothing selected: drag over '
        "the map, or press a group.</p>"
        '<div id="map-pictures" class="pictures"></div></div>'
        f"{_data(sample, atlas, groups, projections)}"
    )
    introduction = (
        f"{sample.share[:1].upper()}{sample.share[1:]}. Point at one to see it; drag a box, or "
        "choose the lasso, to see many. In t-SNE, near means alike; how far apart groups lie means "
        "nothing."
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
            "tsne": f"t-SNE of up to 50 principal components, {ITERATIONS} iterations",
            "pca": f"The first two principal components: {percent(projections.explained)} of the "
            "variance",
        },
    }
    return data_script("map-data", json.dumps(table, separators=(",", ":"), allow_nan=False))
