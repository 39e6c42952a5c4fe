"""How well can the known factors of images be read from their embeddings?"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float32, Float64
from sklearn.linear_model import RidgeCV

from noneg.evaluation.splits import every_fifth
from noneg.images.shapes import FACTORS

_STRENGTHS = np.logspace(-1, 5, 13)
# Stripes look the same after half a turn.
_HALF_TURN = ("foreground_angle", "background_angle")


@final
@dataclass(frozen=True)
class Readout:
    """How well a linear model reads one factor from embeddings of test images.

    Attributes:
        factor: its name, without the number of the copy.
        kind: "class" (accuracy), "number" or "circle" (R2 of the value, or of its sine and cosine).
        trained: score on the embeddings of the trained encoder.
        untrained: score on the embeddings of the untrained encoder.
        chance: score without the embeddings: the share of the most frequent class, or 0.
        copies: number of copies of this factor; the scores are means over them.
    """

    factor: str
    kind: str
    trained: float
    untrained: float
    chance: float
    copies: int = 1

    @property
    def title(self) -> str:
        """The factor's name, for people."""
        words = self.factor.replace("_", " ")
        return f"{words} (mean of {self.copies} copies)" if self.copies > 1 else words

    def kept(self, value: float) -> float:
        """Rescale a score: 0 is chance, 1 is all of the factor."""
        return float(np.clip((value - self.chance) / max(1 - self.chance, 1e-9), 0, 1))


def read_factors(
    factors: Mapping[str, np.ndarray],
    trained: Float32[np.ndarray, "n width"],
    untrained: Float32[np.ndarray, "n width"],
    *,
    labels: np.ndarray | None = None,
    seed: int = 0,
) -> list[Readout]:
    """Read every factor from the embeddings of both encoders; numbered copies are averaged.

    Ridge regression, with a strength chosen by leave-one-out error, predicts numbers directly,
    angles by their sine and cosine, and classes by one column per class, of which the largest wins.
    It learns from four fifths of the images and is tested on the last fifth.

    Args:
        factors: the known factors of the images, each [n].
        trained: embeddings of the trained encoder [n, D].
        untrained: embeddings of the untrained encoder [n, D].
        labels: classes [n]; they are read as one more factor.
        seed: decides the fifth.
    """
    everything = {**({} if labels is None else {"class": labels}), **factors}
    test = every_fifth(np.zeros(len(trained), dtype=np.int64), seed=seed)
    kinds = {name: _kind(name, values) for name, values in everything.items()}
    kinds = {name: kind for name, kind in kinds.items() if kind}
    chances = {
        name: _chance(everything[name], test) if kind == "class" else 0.0
        for name, kind in kinds.items()
    }
    scores = [_scores(everything, kinds, features, test) for features in (trained, untrained)]
    copies: dict[str, list[str]] = {}
    for name in kinds:
        copies.setdefault(re.sub(r"_\d+$", "", name), []).append(name)
    return [
        Readout(
            factor=plain,
            kind=kinds[names[0]],
            trained=float(np.mean([scores[0][name] for name in names])),
            untrained=float(np.mean([scores[1][name] for name in names])),
            chance=float(np.mean([chances[name] for name in names])),
            copies=len(names),
        )
        for plain, names in copies.items()
    ]


def _kind(name: str, values: np.ndarray) -> str:
    """Empty for a factor that does not vary."""
    different = len(np.unique(values))
    if different < 2:
        return ""
    if np.issubdtype(values.dtype, np.integer) and different <= 100:
        return "class"
    factor = FACTORS.get(name)
    return "circle" if factor is not None and (factor.low, factor.high) == (0, 360) else "number"


def _chance(values: np.ndarray, test: Bool[np.ndarray, " n"]) -> float:
    """The test accuracy of always predicting the most frequent training class."""
    classes, sizes = np.unique(values[~test], return_counts=True)
    return float(np.mean(values[test] == classes[np.argmax(sizes)]))


def _scores(
    factors: Mapping[str, np.ndarray],
    kinds: Mapping[str, str],
    features: Float32[np.ndarray, "n width"],
    test: Bool[np.ndarray, " n"],
) -> dict[str, float]:
    learn = features[~test]
    mean, std = learn.mean(axis=0), learn.std(axis=0)
    # A constant feature has no information, and its rounding errors must not be used.
    useful = std > 1e-6 * np.abs(mean) + 1e-12
    standard = ((features - mean) / np.where(useful, std, 1))[:, useful].astype(np.float64)
    targets = {name: _targets(name, kind, factors[name]) for name, kind in kinds.items()}
    together = np.concatenate(list(targets.values()), axis=1)
    spread = together[~test].std(axis=0)
    centered = together - together[~test].mean(axis=0)
    # Columns are scaled for the regression, and scaled back before classes are compared.
    scale = np.where(spread > 0, spread, 1)
    predicted = np.zeros_like(centered[test])
    if standard.shape[1] and together.shape[1]:
        ridge = RidgeCV(_STRENGTHS, alpha_per_target=True)
        ridge.fit(standard[~test], centered[~test] / scale)
        predicted = ridge.predict(standard[test]).reshape(predicted.shape) * scale
    scores: dict[str, float] = {}
    first = 0
    for name, columns in targets.items():
        part = slice(first, first + columns.shape[1])
        first += columns.shape[1]
        if kinds[name] == "class":
            guess = (predicted[:, part] + together[~test][:, part].mean(axis=0)).argmax(axis=1)
            scores[name] = float(np.mean(guess == columns[test].argmax(axis=1)))
        else:
            residual = np.square(centered[test][:, part] - predicted[:, part]).sum()
            scores[name] = float(1 - residual / np.square(centered[test][:, part]).sum())
    return scores


def _targets(name: str, kind: str, values: np.ndarray) -> Float64[np.ndarray, "n columns"]:
    if kind == "class":
        classes: Float64[np.ndarray, "n classes"] = (values[:, None] == np.unique(values)).astype(
            np.float64
        )
        return classes
    if kind == "number":
        column: Float64[np.ndarray, "n 1"] = values.astype(np.float64)[:, None]
        return column
    angle = np.deg2rad(values.astype(np.float64)) * (2 if name in _HALF_TURN else 1)
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)


def best_first(readouts: list[Readout]) -> list[Readout]:
    """In order of what the trained encoder kept, the best first."""
    return sorted(readouts, key=lambda each: -each.kept(each.trained))
