"""What each augmentation buys, and which factors of `shapes` the encoder forgets for it."""

from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch

from noneg.encoder import Encoder
from noneg.evaluation.factors import read_factors
from noneg.evaluation.scores import untrained
from noneg.experiments.figures import bar_panels
from noneg.experiments.judge import every, higher
from noneg.experiments.study import Claim, Study, Variant
from noneg.images.shapes import draw_shapes
from noneg.views import View

_ALL = View(
    crop_scale=(0.3, 1.0), jitter=1.0, saturation=0.8, hue=0.5, grayscale=0.3, vertical_flip=0.5
)
_NO_COLOR: dict[str, Any] = {"jitter": 0.0, "grayscale": 0.0}
_NO_FLIPS: dict[str, Any] = {"flip": 0.0, "vertical_flip": 0.0}
_NO_CROP: dict[str, Any] = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}

_VIEWS = {
    "all": _ALL,
    "without crop": replace(_ALL, **_NO_CROP),
    "without color": replace(_ALL, **_NO_COLOR),
    "without flips": replace(_ALL, **_NO_FLIPS),
    "crop alone": replace(_ALL, **_NO_COLOR, **_NO_FLIPS),
    "color alone": replace(_ALL, **_NO_CROP, **_NO_FLIPS),
    "flips alone": replace(_ALL, **_NO_CROP, **_NO_COLOR),
}
_GROUPS = {
    "colors": ("foreground_hue", "background_hue"),
    "places": ("position_x", "position_y"),
    "rotations": ("rotation",),
    "light": ("light_direction", "light_strength"),
    "polarity": ("lighter",),
}


def measure_factors(encoder: Encoder, quick: bool) -> Mapping[str, float]:
    """From 0 to 1, how much of each group of factors a linear map finds in h.

    Also in the h of a random start, of seed 0 whatever the run's. The images have a seed of their
    own.
    """
    drawn = draw_shapes(500 if quick else 2_500, seed=101, size=encoder.info.stored_size)
    pixels = torch.from_numpy(drawn.pixels)
    start = untrained(encoder.info, seed=0)
    readouts = read_factors(drawn.factors, encoder.embed(pixels), start.embed(pixels))
    found = {each.factor: each for each in readouts}
    numbers: dict[str, float] = {}
    for group, names in _GROUPS.items():
        each = [found[name] for name in names]
        numbers[f"reads_{group}"] = fmean(one.kept(one.trained) for one in each)
        numbers[f"random_reads_{group}"] = fmean(one.kept(one.random) for one in each)
    return numbers


STUDY = Study(
    name="augmentations",
    title="What each augmentation buys",
    question="Two views of an image agree in what the augmentations leave alone. What is lost when "
    "one of crop, color and flips is left out, and what does one alone give? Which of the factors "
    "that `shapes` are drawn from (colors, places ...) can a linear map still read from `h`?",
    variants=tuple(
        Variant(
            name,
            {"method": "vicreg", "views": [view], "num_views": 2},
            quick=name in ("all", "without color"),
        )
        for name, view in _VIEWS.items()
    ),
    claims=(
        Claim(
            "Every augmentation buys something: all three are better than any two.",
            every(*(higher("all", f"without {name}") for name in ("crop", "color", "flips"))),
            "an image of `shapes` holds four small silhouettes, and a crop cuts them or leaves "
            "them out.",
        ),
        Claim(
            "Color augmentation makes `h` forget colors.",
            higher("without color", "all", "reads_colors"),
        ),
        Claim("Crops make `h` forget places.", higher("without crop", "all", "reads_places")),
        Claim(
            "Crop counts for more than color: alone, it is better.",
            higher("crop alone", "color alone"),
            "as above; and colors are what two crops of these images have in common most easily.",
        ),
    ),
    papers=(
        "BYOL (2006.07733), ImageNet, 300 epochs: crop alone, BYOL 59.4, SimCLR 40.3; without "
        "color, 63.4 and 45.7 (all: 72.5 and 67.9).",
        "BYOL's augmentations are not quite SimCLR's: it has solarisation, blurs its two views "
        "differently, and has other strengths of color.",
    ),
    draw=bar_panels("knn", "reads_colors", "reads_places"),
    measure=measure_factors,
    columns=("knn", "linear", *(f"reads_{group}" for group in _GROUPS)),
)
