"""What small crops buy: for the same number of pixels, and in the same time."""

from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from noneg.experiments.figures import LABELS
from noneg.experiments.judge import SEEDS_NEEDED, every, higher, not_enough_runs
from noneg.experiments.results import Results
from noneg.experiments.study import Claim, Outcome, Study, Variant
from noneg.views import View

_SIDE = 16
# Areas as in LeJEPA's example; colors as in "gentle".
_LARGE = View(crop_scale=(0.3, 1.0), saturation=0.2)
_SMALL = replace(_LARGE, size=_SIDE // 2, crop_scale=(0.05, 0.3))
_CROPS = {
    "2 large": (2, 0),
    "2 + 2 small": (2, 2),
    "2 + 4 small": (2, 4),
    "2 + 6 small": (2, 6),
    "4 large": (4, 0),
}
_METHODS = {"swav": {}, "lejepa": {"projector": [256, 64]}}

# Two large crops take three epochs of 4,000 images in batches of 64.
_STEPS = 186
# CPU time of a step, relative to two large crops, of small_resnet at 16 and 8 px: medians of 37
# steps in turns, the mean of both methods (1.64 and 1.64, 2.33 and 2.21, 2.97 and 2.82, 1.91 and
# 1.81). `cpu_seconds` shows how equal the times of the runs were.
_TIMES = {"2 + 2 small": 1.64, "2 + 4 small": 2.27, "2 + 6 small": 2.9, "4 large": 1.86}
_MINUTES = ", same minutes"


def _pixels(crops: str) -> float:
    """Per image, in large crops: a crop of half the side has a quarter of the pixels."""
    large, small = _CROPS[crops]
    return large + small / 4


def _variant(method: str, crops: str, steps: int, more: str = "", quick: bool = True) -> Variant:
    large, small = _CROPS[crops]
    settings: dict[str, Any] = {
        "method": method,
        "options": _METHODS[method],
        "views": [_LARGE] * large + [_SMALL] * small,
        "num_views": large + small,
        "steps": steps,
    }
    return Variant(f"{method}, {crops}{more}", settings, quick)


def _seconds_per_step(results: Results, variant: str) -> float:
    return results.mean(variant, "cpu_seconds") / results.mean(variant, "step")


def _a_small_crop_is_cheap(results: Results) -> Outcome:
    """The time that four small crops add, by the time that two more large ones add."""
    parts, cheap = [], True
    for method in _METHODS:
        names = [f"{method}, {crops}" for crops in ("2 large", "2 + 4 small", "4 large")]
        for name in names:
            if len(results.of(name)) < SEEDS_NEEDED:
                return not_enough_runs(name, len(results.of(name)))
        two, small, large = (_seconds_per_step(results, name) for name in names)
        share = (small - two) / 4 / ((large - two) / 2) if large > two else float("nan")
        cheap = cheap and share <= 1 / 3
        parts.append(f"{method}: a small crop takes {share:.2f} of the time of a large one")
    return Outcome(cheap, "; ".join(parts))


def _accuracies(axis: Axes, results: Results) -> None:
    for method, color in zip(_METHODS, ("#3182bd", "#e6550d"), strict=True):
        for more, style in (("", "o-"), (_MINUTES, "s:")):
            names = [f"{method}, {crops}{more}" for crops in _CROPS]
            # Two large crops are the common reference.
            names[0] = f"{method}, 2 large"
            points = [
                (place, 100 * value)
                for place, name in enumerate(names)
                for value in results.values(name, "knn")
            ]
            means = [
                (place, 100 * results.mean(name, "knn"))
                for place, name in enumerate(names)
                if results.values(name, "knn")
            ]
            if means:
                label = f"{method}{more or ', same pixels'}"
                axis.plot(*zip(*means, strict=True), style, color=color, label=label, markersize=4)
                axis.plot(*zip(*points, strict=True), ".", color=color, markersize=2)
    axis.set_xticks(range(len(_CROPS)), list(_CROPS), fontsize=7)
    axis.set_ylabel(LABELS["knn"], fontsize=8)
    axis.tick_params(axis="y", labelsize=7)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=6)


def _costs(axis: Axes, results: Results) -> None:
    for method in _METHODS:
        two = _seconds_per_step(results, f"{method}, 2 large")
        points = [
            (_pixels(crops) / 2, _seconds_per_step(results, f"{method}, {crops}") / two)
            for crops in _CROPS
            if results.values(f"{method}, {crops}", "cpu_seconds")
        ]
        if points:
            axis.plot(*zip(*points, strict=True), "o", label=method, markersize=4)
    axis.axline((1, 1), slope=1, color="gray", linestyle=":", linewidth=1)
    axis.set_xlabel("pixels (1: two large crops)", fontsize=8)
    axis.set_ylabel("CPU time of a step", fontsize=8)
    axis.tick_params(labelsize=7)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=6)


def _draw(results: Results, figure: Figure) -> None:
    accuracies, costs = figure.subplots(1, 2, width_ratios=(2, 1))
    _accuracies(accuracies, results)
    _costs(costs, results)


STUDY = Study(
    name="multi-crop",
    chapter=11,
    title="Small crops beside large ones",
    question="SwAV adds small crops to two large ones: they learn from the large ones, and have a "
    "quarter of the pixels. What do they buy? Every run sees the same number of pixels, so more "
    "crops mean fewer steps; then the comparison is repeated in the same time, by the time of a "
    "step that was measured. Large crops show 30 to 100 % of the image in 16 px, small ones 5 to "
    "30 % in 8 px.",
    variants=(
        *(
            _variant(
                method,
                crops,
                round(_STEPS * 2 / _pixels(crops)),
                quick=crops in ("2 large", "2 + 4 small"),
            )
            for method in _METHODS
            for crops in _CROPS
        ),
        *(
            _variant(method, crops, round(_STEPS / time), _MINUTES, quick=False)
            for method in _METHODS
            for crops, time in _TIMES.items()
        ),
    ),
    claims=(
        *(
            Claim(
                f"For the same pixels, {name} is better with four small crops more.",
                higher(f"{method}, 2 + 4 small", f"{method}, 2 large"),
            )
            for method, name in (("swav", "SwAV"), ("lejepa", "LeJEPA"))
        ),
        Claim(
            "For the same pixels, four small crops more are better than two large ones more.",
            every(
                *(higher(f"{each}, 2 + 4 small", f"{each}, 4 large") for each in _METHODS),
            ),
        ),
        Claim(
            "For the same pixels, six small crops are better than two.",
            every(*(higher(f"{each}, 2 + 6 small", f"{each}, 2 + 2 small") for each in _METHODS)),
        ),
        Claim(
            "In the same time, two large and four small crops are better than two large ones.",
            every(
                *(higher(f"{each}, 2 + 4 small{_MINUTES}", f"{each}, 2 large") for each in _METHODS)
            ),
        ),
        Claim(
            "A crop of half the side takes at most a third of the time of a large one.",
            _a_small_crop_is_cheap,
            "the last stages of the network see a single pixel of either crop, and their weights "
            "cost the same.",
        ),
    ),
    papers=(
        "SwAV (2006.09882), ImageNet, ResNet-50: two large crops and four of 96 px instead of two "
        "large ones gain 2 to 4 points, for SimCLR and for clustering alike.",
        "lightly's benchmark, Imagenette, ResNet-18 at 128 px, 200 epochs, kNN: DINO 87.3 and SwAV "
        "86.1 with 2 + 6 crops, SimCLR 83.5, VICReg 76.3, BYOL 70.5 with two. The methods differ "
        "in more than their crops.",
        "LeJEPA's example has two crops of 224 px (30 to 100 % of the area) and six of 98 px (5 to "
        "30 %).",
    ),
    draw=_draw,
    settings={"size": _SIDE, "steps": _STEPS},
    columns=("step", "cpu_seconds", "knn", "linear", "effective_rank_z", "effective_rank_h"),
)
