"""More views of fewer images, for the same number of views per step."""

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import normalize

from noneg.experiments.figures import LABELS
from noneg.experiments.judge import close, every, higher
from noneg.experiments.results import ACCURACIES, Results
from noneg.experiments.study import Claim, Study, Variant
from noneg.methods.base import Embeddings, Method

_METHODS = ("vicreg", "mmcr", "emp_ssl", "fastsiam")
_VIEWS = (2, 4, 8)
_IMAGES = {views: 128 // views for views in _VIEWS}
# A rate of 3e-3 for every step, which has the same number of views: settings are for 256 images.
_RATE, _WARMUP, _AT = 3e-3, 0.3, 64
_FEW = _IMAGES[8]


def target_noise(_method: Method, e: Embeddings) -> Mapping[str, float | Tensor]:
    """How much of the mean of an image's other views is due to the views, and not to the image.

    The variance of the mean of V - 1 views within an image, relative to its variance over images;
    of embeddings of length 1, in [0, 1]. With n images and V views z, w the variance within images
    (divisor V - 1) and b that of the means over images (divisor n - 1, less w / V), both summed
    over coordinates: w / (V - 1) / (b + w / (V - 1)).
    """
    z = normalize(e.z.detach().double(), dim=2)
    views = len(z)
    within = z.var(dim=0).mean(dim=0).sum()
    between = (z.mean(dim=0).var(dim=0).sum() - within / views).clamp(min=0)
    noise = within / (views - 1)
    return {"target_noise": noise / (between + noise).clamp(min=1e-12)}


def _options(method: str, images: int) -> dict[str, Any]:
    if method != "emp_ssl":
        return {}
    # As in its recipes, agreement weighs as much as the largest coding rate, which depends on the
    # number of images: with a width of 128 and a distortion of 0.2.
    return {"invariance": round(images / 2 * math.log1p(128 / (0.2 * images)), 1)}


def _name(method: str, views: int, images: int) -> str:
    return f"{method}, {views} x {images}"


def _variant(method: str, views: int, images: int, *, quick: bool = False) -> Variant:
    settings: dict[str, Any] = {
        "method": method,
        "options": _options(method, images),
        "num_views": views,
        "batch_size": images,
        "learning_rate": _RATE * 256 / images,
        "warmup_epochs": _WARMUP * images / _AT,
    }
    return Variant(_name(method, views, images), settings, quick)


def _whole(method: str, views: int) -> str:
    return _name(method, views, _IMAGES[views])


def _curves(axis: Axes, results: Results, column: str) -> None:
    factor = 100 if column in ACCURACIES else 1
    for number, method in enumerate(_METHODS):
        points = [
            (views, factor * results.mean(_whole(method, views), column))
            for views in _VIEWS
            if results.values(_whole(method, views), column)
        ]
        if points:
            axis.plot(*zip(*points, strict=True), "o-", color=f"C{number}", label=method)
        few = [factor * each for each in results.values(_name(method, 2, _FEW), column)]
        if few:
            axis.plot([2], [sum(few) / len(few)], "x", color=f"C{number}")
    axis.set_xscale("log", base=2)
    axis.set_xticks(_VIEWS, [f"{views} x {_IMAGES[views]}" for views in _VIEWS], fontsize=7)
    axis.set_xlabel(f"views x images (cross: 2 x {_FEW})", fontsize=8)
    axis.set_ylabel(LABELS.get(column, column.replace("_", " ")), fontsize=8)
    axis.tick_params(axis="y", labelsize=7)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=6)


def _draw(results: Results, figure: Figure) -> None:
    for axis, column in zip(figure.subplots(1, 3), ("knn", "linear", "target_noise"), strict=True):
        _curves(axis, results, column)


STUDY = Study(
    name="many-views",
    chapter=12,
    title="More views of fewer images",
    question="A step of 128 views can show two views of 64 images, four of 32, or eight of 16. "
    "Steps and views per step are the same, and the number of images that are seen falls."
    " (The time is not the same: a step takes eight batches of 16 through the network "
    "instead of two of 64.) The mean of many views of an image is a steadier target "
    "(FastSiam; with two views it is SimSiam), and MMCR and EMP-SSL were made for many "
    "views. But what keeps embeddings apart looks at the images of a batch, and there are"
    " fewer. Which counts for more? Two views of 16 images, a quarter of the views, show "
    "what few images do by themselves.",
    variants=(
        *(
            _variant(method, views, _IMAGES[views], quick=views != 4 and method != "emp_ssl")
            for method in _METHODS
            for views in _VIEWS
        ),
        *(_variant(method, 2, _FEW) for method in _METHODS),
    ),
    claims=(
        Claim(
            "FastSiam is better with eight views of 16 images than with two of 64 (SimSiam).",
            higher(_whole("fastsiam", 8), _whole("fastsiam", 2)),
        ),
        Claim(
            "MMCR and EMP-SSL, which were made for many views, are better with eight views of 16 "
            "images than with two of 64.",
            every(*(higher(_whole(each, 8), _whole(each, 2)) for each in ("mmcr", "emp_ssl"))),
        ),
        Claim(
            "VICReg, whose variances and covariances are those of the images of a batch, is worse "
            "with eight views of 16 images than with two of 64.",
            higher(_whole("vicreg", 2), _whole("vicreg", 8)),
        ),
        Claim(
            "Four views of 32 images and two of 64 differ by at most 3 points, in every method.",
            every(*(close(_whole(each, 4), _whole(each, 2), within=0.03) for each in _METHODS)),
        ),
        Claim(
            "Of 16 images, eight views are better than two, in every method.",
            every(*(higher(_whole(each, 8), _name(each, 2, _FEW)) for each in _METHODS)),
        ),
        Claim(
            "The mean of seven other views is a steadier target than one other view, in every "
            "method.",
            every(*(higher(_whole(each, 2), _whole(each, 8), "target_noise") for each in _METHODS)),
        ),
    ),
    papers=(
        "FastSiam (Pototzky et al. 2022): four views, batches of 32. lightly's benchmark, "
        "CIFAR-10, 200 epochs, batches of 128: FastSiam 90.6 with four views in 164 minutes, "
        "SimSiam 81.9 with two in 97; with batches of 512 78.8 and 76.4.",
        "MMCR (2303.03307), CIFAR-10: 40 views of 32 images. EMP-SSL (2304.03977), CIFAR-10: 20 "
        "crops of 100 images, 80.6 after one epoch and 93.1 after 30; VICReg with two views 40.6 "
        "and 78.1.",
    ),
    draw=_draw,
    settings={"steps": 248},
    batch_measure=target_noise,
    columns=("knn", "linear", "target_noise", "std_z", "effective_rank_z", "cpu_seconds"),
)
