"""Likely causes of a verdict under the run's method and settings, and what to change."""

from collections.abc import Iterator
from typing import Any

from noneg.diagnostics import State
from noneg.methods import find_method
from noneg.training.config import TrainConfig

# Learning rates beyond these multiples of the recipe's rate are mentioned.
_HIGH_RATE, _LOW_RATE = 4.0, 0.25
_SMALL_BATCH = 32

COLLAPSES = ("complete collapse", "dimensional collapse", "projector only")


def likely_causes(state: State, config: TrainConfig) -> list[str]:
    """Sentences that name a setting and a way out, the likeliest cause first; none if all is well.

    Args:
        state: the state of the verdict.
        config: the config of the run.
    """
    causes: list[str] = []
    if state in COLLAPSES:
        causes += _missing_safeguards(config)
        causes += _missing_terms(state, config)
    if state == "not learning":
        causes += _nothing_moves(config)
    own = find_method(config.method).causes
    if own is not None and state in (*COLLAPSES, "not learning"):
        causes += own(state, config.options, config.batch_size)
    if state in (*COLLAPSES, "exploding scale", "not learning"):
        causes += _learning_rate(state, config)
        causes += _batch(config)
    if state in ("dimensional collapse", "not learning"):
        causes += _views(config)
    if state == "exploding scale" and config.weight_decay == 0:
        causes.append("nothing limits the weights: give a --weight-decay")
    if not causes and state in (*COLLAPSES, "exploding scale", "not learning"):
        causes.append(_GENERAL[state])
    return causes


_GENERAL: dict[str, str] = {
    "complete collapse": "try half the --learning-rate, more --warmup-epochs, or --method vicreg",
    "dimensional collapse": "try half the --learning-rate, a wider projector, or more images",
    "projector only": "the representation is sound: try a wider projector",
    "exploding scale": "try half the --learning-rate and more --warmup-epochs",
    "not learning": "train longer, or at twice the --learning-rate",
}


def _option(config: TrainConfig, name: str) -> Any:
    return getattr(config.options, name, None)


def _missing_safeguards(config: TrainConfig) -> Iterator[str]:
    """Settings that remove what prevents the method from collapsing."""
    if _option(config, "stop_gradient") is False:
        yield "without the stop-gradient this method collapses: --options.stop-gradient true"
    if _option(config, "predictor") == "none":
        yield "without a predictor this method collapses: --options.predictor mlp"
    if _option(config, "target") == "copy" and (_option(config, "predictor_rate") or 1) < 2:
        yield (
            "a target that copies the network needs a fast predictor (BYOL, appendix I): "
            "--options.predictor-rate 10, or --options.target moving_average"
        )


def _missing_terms(state: State, config: TrainConfig) -> Iterator[str]:
    """Weights of the loss's terms that are 0, or too small against the agreement term."""
    invariance = _option(config, "invariance")
    variance, covariance = _option(config, "variance"), _option(config, "covariance")
    redundancy = _option(config, "redundancy")
    if variance is not None and invariance is not None and variance < invariance / 2:
        yield (
            f"variance has the weight {variance:g}, agreement has {invariance:g}: give an equal "
            "--options.variance (smaller ones collapse in the paper too)"
        )
    if state != "complete collapse" and covariance == 0:
        yield "nothing decorrelates the coordinates: --options.covariance 1"
    if state != "complete collapse" and redundancy == 0:
        yield "nothing decorrelates the coordinates: --options.redundancy 0.005"


def _nothing_moves(config: TrainConfig) -> Iterator[str]:
    if _option(config, "target") == "frozen":
        yield "the target never moves: --options.target moving_average"
    if _option(config, "predictor") == "fixed":
        yield "the predictor keeps its initial weights: --options.predictor mlp"
    if _option(config, "invariance") == 0:
        yield "nothing makes the views agree: give an --options.invariance above 0"
    if _option(config, "tau") == 1:
        yield "with tau 1 the target never moves: --options.tau 0.99"


def _learning_rate(state: State, config: TrainConfig) -> Iterator[str]:
    usual = find_method(config.method).recipe(config.recipe)
    if config.optimizer != usual.optimizer or usual.learning_rate == 0:
        return
    ratio = config.learning_rate / usual.learning_rate
    if ratio > _HIGH_RATE:
        yield (
            f"--learning-rate {config.learning_rate:g} is {ratio:.0f} times the recipe's: "
            f"try {usual.learning_rate:g}"
        )
    if ratio < _LOW_RATE and state == "not learning":
        yield (
            f"--learning-rate {config.learning_rate:g} is 1/{1 / ratio:.0f} of the recipe's: "
            f"try {usual.learning_rate:g}"
        )
    if config.warmup_epochs == 0 and usual.warmup_epochs > 0 and state != "not learning":
        yield f"there is no warm-up: --warmup-epochs {usual.warmup_epochs:g}"


def _batch(config: TrainConfig) -> Iterator[str]:
    if config.batch_size is None:
        return
    if config.batch_size < _SMALL_BATCH:
        yield (
            f"batches of {config.batch_size} give noisy statistics: --batch-size 128, with "
            "--chunk-size if memory is short"
        )
    projector = _option(config, "projector")
    has_statistics = any(_option(config, name) for name in ("covariance", "redundancy"))
    if has_statistics and projector and projector[-1] > 16 * config.batch_size:
        yield (
            f"batches of {config.batch_size} images are too small for {projector[-1]} projected "
            "coordinates: give a larger --batch-size, or a narrower --options.projector"
        )


def _views(config: TrainConfig) -> Iterator[str]:
    if config.views == "weak":
        yield "the views differ little, so they agree without learning: --views gentle"
    if config.views in ("simclr", "multi_crop", "byol", "barlow_twins"):
        yield f"the views of {config.views} are strong for small images: try --views gentle"
