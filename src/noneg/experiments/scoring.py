"""Accuracy of a run's encoder and of the untrained baselines, on few images."""

from functools import lru_cache

import numpy as np

from noneg.encoder import Encoder
from noneg.evaluation.pixels import LARGEST_PIXEL_SIDE, centered_pixels
from noneg.evaluation.scores import (
    evaluate_features,
    matched_labels,
    sample_images,
    untrained,
)
from noneg.images import Images, find_source, load_images
from noneg.training.config import TrainConfig
from noneg.training.data import load_for_evaluation

Parts = tuple[Images, Images]
"""Labeled images to learn from, and labeled images to test on."""


def labeled_parts(encoder: Encoder, config: TrainConfig) -> Parts | None:
    """The images that the run's encoder is scored on; None if there are no labels."""
    info = encoder.info
    return _load(
        config.data, config.eval_data, info.channels, info.stored_size, config.evaluation_images
    )


def score_encoder(encoder: Encoder, parts: Parts) -> dict[str, float]:
    """`knn` and `linear`, in [0, 1]."""
    bank, test = (encoder.embed_pixels(np.asarray(part.pixels)) for part in parts)
    return _accuracies(bank, test, parts)


def score_baselines(encoder: Encoder, parts: Parts, seed: int) -> dict[str, float]:
    """`untrained_knn`, `untrained_linear`, `pixels_knn` and `pixels_linear`, in [0, 1]."""
    side = min(encoder.info.size, LARGEST_PIXEL_SIDE)
    bank, test = (np.asarray(part.pixels) for part in parts)
    scores = {
        "untrained": score_encoder(untrained(encoder, seed=seed), parts),
        "pixels": _accuracies(*centered_pixels(bank, test, side), parts),
    }
    return {f"{name}_{probe}": score[probe] for name, score in scores.items() for probe in score}


def _accuracies(bank: np.ndarray, test: np.ndarray, parts: Parts) -> dict[str, float]:
    bank_labels, test_labels = matched_labels(*parts)
    score = evaluate_features("features", bank, bank_labels, test, test_labels)
    return {"knn": score.knn, "linear": score.linear}


@lru_cache(maxsize=2)
def _load(data: str, eval_data: str | None, channels: int, side: int, most: int) -> Parts | None:
    images = load_images(find_source(data), channels=channels, size=side)
    config = TrainConfig(data=data, eval_data=eval_data, evaluation_images=most)
    parts = load_for_evaluation(config, images, eval_data, None)
    return parts and (sample_images(parts[0], most), sample_images(parts[1], most))
