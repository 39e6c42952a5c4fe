"""Accuracy of a run's encoder, and of what was not trained, on few images."""

from functools import lru_cache

import numpy as np

from noneg.encoder import Encoder
from noneg.evaluation.scores import (
    LARGEST_PIXEL_SIDE,
    centered_pixels,
    evaluate_features,
    matched_labels,
    sample_images,
    untrained,
)
from noneg.images import Images, find_source, load_images
from noneg.training.build import load_for_evaluation
from noneg.training.config import TrainConfig


def trained_scores(encoder: Encoder, config: TrainConfig) -> dict[str, float] | None:
    """`knn` and `linear` in [0, 1], or None where there are no labels."""
    parts = _labeled(config, encoder)
    return None if parts is None else _scores(encoder, *parts, prefix="")


def baselines(encoder: Encoder, config: TrainConfig) -> dict[str, float]:
    """`random_knn`, `random_linear`, `pixels_knn` and `pixels_linear`, in [0, 1]."""
    parts = _labeled(config, encoder)
    assert parts is not None
    bank, test = parts
    start = untrained(encoder.info, seed=config.seed)
    side = min(encoder.info.size, LARGEST_PIXEL_SIDE)
    pixels = centered_pixels(np.asarray(bank.pixels), np.asarray(test.pixels), side)
    score = evaluate_features("pixels", pixels[0], *_between(bank, test, pixels[1]))
    return _scores(start, bank, test, prefix="random_") | {
        "pixels_knn": score.knn,
        "pixels_linear": score.linear,
    }


def _scores(encoder: Encoder, bank: Images, test: Images, prefix: str) -> dict[str, float]:
    features = [encoder.embed_pixels(np.asarray(part.pixels)) for part in (bank, test)]
    score = evaluate_features("features", features[0], *_between(bank, test, features[1]))
    return {f"{prefix}knn": score.knn, f"{prefix}linear": score.linear}


def _between(
    bank: Images, test: Images, features: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    bank_labels, test_labels = matched_labels(bank, test)
    return bank_labels, features, test_labels


def _labeled(config: TrainConfig, encoder: Encoder) -> tuple[Images, Images] | None:
    info = encoder.info
    return _load(
        config.data, config.eval_data, info.channels, info.stored_size, config.evaluation_images
    )


@lru_cache(maxsize=2)
def _load(
    data: str, eval_data: str | None, channels: int, side: int, most: int
) -> tuple[Images, Images] | None:
    images = load_images(find_source(data), channels=channels, size=side)
    config = TrainConfig(data=data, eval_data=eval_data, evaluation_images=most)
    parts = load_for_evaluation(config, images, eval_data, None)
    return parts and (sample_images(parts[0], most), sample_images(parts[1], most))
