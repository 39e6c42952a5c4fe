"""Is it worth labeling more? Accuracy against the number of labels."""

from html import escape

import numpy as np
from bokeh.models import ColumnDataSource
from bokeh.models.annotations import Whisker

from noneg.records.contents import Accuracies, RunFiles
from noneg.report.canvases import Canvases
from noneg.report.colors import CATEGORIES, css_color
from noneg.report.html import Section
from noneg.report.numbers import percent


def labels_section(run: RunFiles, canvases: Canvases) -> Section | None:
    """A figure and a table of `noneg curve`; None if it was not run."""
    if not run.curve:
        return None
    counts = sorted({count for rows in run.curve.values() for count in rows})
    plot = canvases.empty(240, tools="", x_axis_type="log" if len(counts) > 1 else "linear")
    plot.xaxis.axis_label, plot.yaxis.axis_label = "labels", "accuracy"
    colors = dict(zip(run.curve, [*CATEGORIES] * len(run.curve), strict=False))
    for name, rows in run.curve.items():
        labels = np.array(list(rows), dtype=np.float64)
        means = np.array([values.mean() for values in rows.values()])
        spreads = np.array([_spread(values) for values in rows.values()])
        plot.line(labels, means, color=colors[name], line_width=1.8)
        plot.scatter(labels, means, color=colors[name], size=5)
        source = ColumnDataSource({"x": labels, "low": means - spreads, "high": means + spreads})
        plot.add_layout(
            Whisker(
                base="x",
                lower="low",
                upper="high",
                source=source,
                line_color=colors[name],
                upper_head=None,
                lower_head=None,
            )
        )
    swatch = '<i class="swatch" style="background:{}"></i>'
    head = "".join(
        f"<th>{swatch.format(css_color(colors[name]))}{escape(name)}</th>" for name in run.curve
    )
    body = "".join(
        f"<tr><td>{count:,}</td>"
        + "".join(f"<td>{_cell(rows.get(count))}</td>" for rows in run.curve.values())
        + "</tr>"
        for count in counts
    )
    first, last = counts[0], counts[-1]
    spoken = "; ".join(
        f"{name} from {_cell(rows.get(first))} to {_cell(rows.get(last))}"
        for name, rows in run.curve.items()
    )
    label = f"Accuracy with {first:,} to {last:,} labels: {spoken}"
    return Section(
        "labels",
        "Labels",
        "Accuracy on held-out images of classifiers that were given so many labels. Each number is "
        "a mean over random choices of the labeled images, and its standard deviation. If the "
        "curve still rises at its end, more labels pay.",
        f'<figure class="panel wide">{canvases.place(plot, label)}</figure>'
        f"<table><thead><tr><th>labels</th>{head}</tr></thead><tbody>{body}</tbody></table>",
    )


def _spread(values: Accuracies) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _cell(values: Accuracies | None) -> str:
    if values is None:
        return ""
    spread = f" \N{PLUS-MINUS SIGN} {100 * _spread(values):.1f}" if len(values) > 1 else ""
    return f"{percent(float(values.mean()))}{spread}"
