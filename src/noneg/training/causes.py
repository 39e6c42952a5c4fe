"""What probably lies behind a verdict, for this method and these settings, and what to change."""

from collections.abc import Iterator
from typing import Any

from noneg.diagnostics import State
from noneg.methods import find_method
from noneg.training.config import TrainConfig

# Beyond these multiples of the recipe's, a learning rate is worth a word.
_HIGH_RATE, _LOW_RATE = 4.0, 0.25
_SMALL_BATCH = 32

COLLAPSES = ("complete collapse", "dimensional collapse", "projector only")


def likely_causes(state: State, config: TrainConfig) -> list[str]:
    """Sentences that name a setting and the way out, the most telling first; none if all is well.

    Args:
        state: of a verdict.
        config: of the run.
    """
    causes: list[str] = []
    if state in COLLAPSES:
        causes += _no_defence(config)
        causes += _missing_terms(state, config)
    if state == "not learning":
        causes += _standing_still(config)
    if state in (*COLLAPSES, "exploding scale", "not learning"):
        causes += _learning_rate(state, config)
        causes += _batch(config)
    if state in ("dimensional collapse", "not learning"):
        causes += _views(config)
    if state == "exploding scale" and config.weight_decay == 0:
        causes.append("nothing holds the weights: give a --weight_decay")
    if not causes and state in (*COLLAPSES, "exploding scale", "not learning"):
        causes.append(_GENERAL[state])
    return causes


_GENERAL: dict[str, str] = {
    "complete collapse": "try half the --learning_rate, a longer --warmup_epochs, or vicreg",
    "dimensional collapse": "try half the --learning_rate, a wider projector, or more images",
    "projector only": "the representation is sound: a wider projector may be worth a try",
    "exploding scale": "try half the --learning_rate and a longer --warmup_epochs",
    "not learning": "train for longer, or at twice the --learning_rate",
}


def _option(config: TrainConfig, name: str) -> Any:
    return getattr(config.options, name, None)


def _no_defence(config: TrainConfig) -> Iterator[str]:
    """Settings that take away what keeps the method from collapsing."""
    if config.method == "siamese":
        yield "siamese has nothing against collapse, it is the control: choose vicreg or another"
    if _option(config, "stop_gradient") is False:
        yield "without the stop-gradient this method collapses: --options.stop_gradient true"
    if _option(config, "predictor") == "none":
        yield "without a predictor this method collapses: --options.predictor mlp"
    if _option(config, "target") == "copy" and (_option(config, "predictor_rate") or 1) < 2:
        yield (
            "a target that copies the network needs a fast predictor (BYOL, appendix I): "
            "--options.predictor_rate 10, or --options.target moving_average"
        )


def _missing_terms(state: State, config: TrainConfig) -> Iterator[str]:
    """Weights of a loss that are off, or small beside the agreement they have to balance."""
    invariance = _option(config, "invariance")
    variance, covariance = _option(config, "variance"), _option(config, "covariance")
    redundancy = _option(config, "redundancy")
    if variance is not None and invariance is not None and variance < invariance / 2:
        yield (
            f"variance has the weight {variance:g} beside {invariance:g} for agreement: "
            "--options.variance as large (smaller ones collapse in its paper too)"
        )
    if state != "complete collapse" and covariance == 0:
        yield "nothing keeps coordinates apart: --options.covariance 1"
    if state != "complete collapse" and redundancy == 0:
        yield "nothing keeps coordinates apart: --options.redundancy 0.005"


def _standing_still(config: TrainConfig) -> Iterator[str]:
    if _option(config, "target") == "frozen":
        yield "the target never moves: --options.target moving_average"
    if _option(config, "predictor") == "fixed":
        yield "the predictor keeps its random weights: --options.predictor mlp"
    if _option(config, "invariance") == 0:
        yield "nothing makes the views agree: --options.invariance above 0"
    if _option(config, "tau") == 1:
        yield "tau 1 never moves the target: --options.tau 0.99"


def _learning_rate(state: State, config: TrainConfig) -> Iterator[str]:
    usual = find_method(config.method).recipe(config.recipe)
    if config.optimizer != usual.optimizer or usual.learning_rate == 0:
        return
    ratio = config.learning_rate / usual.learning_rate
    if ratio > _HIGH_RATE:
        yield (
            f"--learning_rate {config.learning_rate:g} is {ratio:.0f} times the recipe's: "
            f"try {usual.learning_rate:g}"
        )
    if ratio < _LOW_RATE and state == "not learning":
        yield (
            f"--learning_rate {config.learning_rate:g} is a {1 / ratio:.0f}th of the recipe's: "
            f"try {usual.learning_rate:g}"
        )
    if config.warmup_epochs == 0 and usual.warmup_epochs > 0 and state != "not learning":
        yield f"there is no warm-up: --warmup_epochs {usual.warmup_epochs:g}"


def _batch(config: TrainConfig) -> Iterator[str]:
    if config.batch_size is None:
        return
    if config.batch_size < _SMALL_BATCH:
        yield (
            f"batches of {config.batch_size} give noisy statistics: --batch_size 128, with "
            "--chunk_size where memory is short"
        )
    projector = _option(config, "projector")
    has_statistics = any(_option(config, name) is not None for name in ("variance", "redundancy"))
    if has_statistics and projector and projector[-1] > 16 * config.batch_size:
        yield (
            f"{projector[-1]} projected coordinates cannot be told apart by {config.batch_size} "
            "images: a larger --batch_size, or a narrower --options.projector"
        )


def _views(config: TrainConfig) -> Iterator[str]:
    if config.views == "weak":
        yield "the views differ by little, and agree without learning: --views gentle"
    if config.views in ("simclr", "multi_crop", "byol", "barlow_twins"):
        yield f"the views of {config.views} are strong for small images: try --views gentle"
