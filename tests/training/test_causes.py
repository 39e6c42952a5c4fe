"""Likely causes name the wrong setting and a way out; a healthy run has none."""

from typing import Any

import pytest

from noneg.methods import list_methods
from noneg.training.causes import likely_causes
from noneg.training.config import make_config

STATES = ("complete collapse", "dimensional collapse", "exploding scale", "not learning")


@pytest.mark.parametrize(
    ("state", "settings", "told"),
    [
        ("complete collapse", {"method": "siamese"}, "is the control"),
        (
            "complete collapse",
            {"method": "byol", "options": {"predictor": "none"}},
            "--options.predictor mlp",
        ),
        (
            "complete collapse",
            {"method": "simsiam", "options": {"stop_gradient": False}},
            "--options.stop-gradient true",
        ),
        (
            "complete collapse",
            {"method": "byol", "options": {"target": "copy", "predictor_rate": 1.0}},
            "--options.predictor-rate 10",
        ),
        (
            "complete collapse",
            {"method": "vicreg", "options": {"variance": 0.0}},
            "--options.variance",
        ),
        (
            "dimensional collapse",
            {"method": "vicreg", "options": {"covariance": 0.0}},
            "--options.covariance 1",
        ),
        (
            "dimensional collapse",
            {"method": "barlow_twins", "options": {"redundancy": 0.0}},
            "--options.redundancy",
        ),
        (
            "complete collapse",
            {"method": "dino", "options": {"center_momentum": 1.0}},
            "--options.center-momentum 0.9",
        ),
        (
            "complete collapse",
            {"method": "dino", "options": {"target_temperature": 0.1}},
            "--options.target-temperature 0.04",
        ),
        ("complete collapse", {"method": "lejepa", "options": {"sigreg": 0.0}}, "--options.sigreg"),
        ("complete collapse", {"method": "visreg", "options": {"scale": 0.0}}, "--options.scale"),
        ("projector only", {"method": "visreg", "options": {"shape": 0.0}}, "--options.shape"),
        ("complete collapse", {"method": "tico", "options": {"rho": 0.1}}, "--options.rho 8"),
        ("not learning", {"method": "byol", "options": {"target": "frozen"}}, "never moves"),
        ("not learning", {"method": "i_jepa", "options": {"tau": 1.0}}, "--options.tau 0.99"),
        ("dimensional collapse", {"method": "i_jepa"}, "hundreds of epochs"),
        ("not learning", {"method": "vicreg", "learning_rate": 1.6e-4}, "1/100 of the recipe's"),
        ("not learning", {"method": "vicreg", "views": "weak"}, "--views gentle"),
        ("exploding scale", {"method": "byol", "learning_rate": 0.24}, "30 times the recipe's"),
        ("complete collapse", {"method": "byol", "batch_size": 8}, "batches of 8"),
        ("projector only", {"method": "swav", "options": {"epsilon": 1.0}}, "--options.epsilon"),
        (
            "projector only",
            {"method": "corinfomax", "batch_size": 32},
            "batches of 32 images cannot fill 32 projected coordinates",
        ),
        (
            "dimensional collapse",
            {"method": "vicreg", "options": {"projector": (1024, 2048)}, "batch_size": 64},
            "too small for 2048 projected coordinates",
        ),
    ],
)
def test_the_broken_setting_is_named_first(state: Any, settings: Any, told: str) -> None:
    causes = likely_causes(state, make_config(**settings))
    assert told in causes[0]


def test_a_wide_projection_is_no_cause_where_coordinates_are_not_compared() -> None:
    options = {"projector": (1024, 2048)}
    config = make_config(method="byol", options=options, batch_size=64)
    assert "coordinates" not in " ".join(likely_causes("complete collapse", config))


@pytest.mark.parametrize("name", list_methods())
def test_every_alarm_has_a_way_out_and_a_healthy_run_has_none(name: str) -> None:
    config = make_config(method=name)
    for state in STATES:
        causes = likely_causes(state, config)  # type: ignore[arg-type]
        assert causes
        assert "--learning-rate 0.016 is" not in " ".join(causes)
    assert likely_causes("healthy", config) == []
    assert likely_causes("too early to say", config) == []
