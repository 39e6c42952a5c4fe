"""Who trains on photographs from scratch hears of known weights, and nobody else does."""

import numpy as np
import pytest

from noneg.images import find_source
from noneg.training.advice import advise_known_weights
from noneg.training.config import make_config
from noneg.training.plan import complete


def advice(side: int, channels: int, **settings: object) -> str | None:
    images = np.zeros((40, side, side, channels), np.uint8)
    source = find_source(images)
    return advise_known_weights(complete(make_config(images, **settings), source), source)


def test_photographs_from_scratch_get_one_sentence_with_the_command() -> None:
    said = advice(200, 3)
    assert said is not None
    assert "noneg train DATA --start timm:" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("side", "channels", "settings"),
    [
        (32, 3, {}),
        (200, 1, {}),
        (200, 5, {}),
        (200, 3, {"method": "distill", "options": {"teacher": "timm:resnet18"}}),
    ],
)
def test_others_do_not(side: int, channels: int, settings: dict[str, object]) -> None:
    assert advice(side, channels, **settings) is None
