"""Bokeh's part of a page: its figures, and the two scripts that draw them."""

from collections.abc import Sequence
from html import escape
from typing import Any, final

import numpy as np
from bokeh.core.json_encoder import serialize_json
from bokeh.document import Document
from bokeh.events import MouseLeave, MouseMove
from bokeh.models import CrosshairTool, CustomJS, CustomJSTickFormatter
from bokeh.models.annotations import Span
from bokeh.plotting import figure
from bokeh.resources import Resources

from noneg.report.colors import GRID, INK
from noneg.report.html import data_script

MOST_POINTS = 1_000
"""The most points of a line; of longer lines, evenly spaced points are drawn."""


@final
class Canvases:
    """The figures of one page. Figures over the same axis share its range and the crosshair."""

    def __init__(self) -> None:
        self._figures: list[Any] = []
        self._shared: dict[str, tuple[Any, Span]] = {}

    def place(self, plot: Any, label: str) -> str:
        """The HTML element that a figure is drawn into, with a label for screen readers."""
        self._figures.append(plot)
        return (
            f'<div class="canvas" id="canvas-{len(self._figures)}" style="height:{plot.height}px" '
            f'role="img" aria-label="{escape(label)}"></div>'
        )

    def empty(self, height: int, **settings: Any) -> Any:
        """A figure as wide as its element, without background, frame and toolbar."""
        plot = figure(
            height=height,
            sizing_mode="stretch_width",
            toolbar_location=None,
            background_fill_color=None,
            border_fill_color=None,
            outline_line_color=None,
            min_border=4,
            **settings,
        )
        plot.grid.grid_line_color = GRID
        plot.xgrid.visible = False
        for axis in plot.axis:
            axis.update(
                formatter=CustomJSTickFormatter(code="return window.noneg.tick(tick)"),
                axis_line_color=None,
                major_tick_line_color=None,
                minor_tick_line_color=None,
                major_label_text_color=INK,
                major_label_text_font_size="11px",
                major_label_text_font="system-ui, sans-serif",
                axis_label_text_color=INK,
                axis_label_text_font_size="11px",
                axis_label_text_font="system-ui, sans-serif",
                axis_label_text_font_style="normal",
            )
        return plot

    def lines(
        self,
        over: str,
        lines: Sequence[tuple[str, str, np.ndarray, np.ndarray]],
        *,
        height: int = 110,
        **settings: Any,
    ) -> Any:
        """A figure of lines.

        Args:
            over: the unit of the x axis, such as "step".
            lines: name, color, x and y of each; the page's script finds a line by its name.
            height: in pixels.
            settings: of the figure, such as its y_range.
        """
        if over in self._shared:
            settings["x_range"] = self._shared[over][0]
        plot = self.empty(height, tools="xpan,xbox_zoom,reset", **settings)
        if over not in self._shared:
            crosshair = Span(dimension="height", line_color=INK, line_width=1, line_alpha=0.6)
            plot.x_range.range_padding = 0.02
            self._shared[over] = plot.x_range, crosshair
        plot.add_tools(CrosshairTool(overlay=self._shared[over][1], dimensions="height"))
        plot.xaxis.ticker.desired_num_ticks = 4
        plot.yaxis.ticker.desired_num_ticks = 3
        for name, color, x, y in lines:
            x, y = thinned(x, y)
            drawn = plot.line(x, y, color=color, line_width=1.8, line_join="round")
            drawn.data_source.name = f"line {name}"
            if len(x) == 1:
                plot.scatter(x, y, color=color, size=5)
        plot.js_on_event(MouseMove, CustomJS(code="window.noneg.read(cb_obj.x)"))
        plot.js_on_event(MouseLeave, CustomJS(code="window.noneg.read(null)"))
        return plot

    def scripts(self) -> str:
        """BokehJS itself, and the figures as data; empty without figures."""
        if not self._figures:
            return ""
        document = Document()
        for plot in self._figures:
            document.add_root(plot)
        places = {plot.id: f"canvas-{number}" for number, plot in enumerate(self._figures, 1)}
        drawing = {
            "documents": {"report": document.to_json(deferred=False)},
            "items": [{"docid": "report", "roots": places, "root_ids": list(places)}],
        }
        resources = Resources(mode="inline", components=["bokeh"], minified=True)
        return f"{resources.render_js()}\n{data_script('drawing', serialize_json(drawing))}"


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points that are finite: at most `MOST_POINTS`, evenly spaced, the last included."""
    finite = np.flatnonzero(np.isfinite(y) & np.isfinite(x))
    if len(finite) > MOST_POINTS:
        finite = finite[np.linspace(0, len(finite) - 1, MOST_POINTS).round().astype(np.int64)]
    return x[finite], y[finite]
