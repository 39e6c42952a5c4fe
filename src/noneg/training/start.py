"""`--start`: the known weights that a run begins with, instead of random ones."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from noneg.encoder import WEIGHTS, Encoder, read_encoder_info
from noneg.errors import NonegError
from noneg.images import Images
from noneg.networks.pretrained import Fit, Known, find_known, is_known, load_known
from noneg.records.directory import RunDirectory
from noneg.training.build import describe_encoder
from noneg.training.config import TrainConfig
from noneg.training.plan import Plan


@final
@dataclass(frozen=True)
class Start:
    """The network that a run begins with.

    Attributes:
        known: where its weights are from.
        encoder: the network as it is, for comparison with the trained one.
        fit: which of its weights fit the network of the run.
    """

    known: Known
    encoder: Encoder
    fit: Fit

    def describe(self) -> str:
        """One line, with what does not fit."""
        unfit = self.fit.describe()
        return f"it begins with {self.known.describe()}{f'; {unfit}' if unfit else ''}"


def find_start(config: TrainConfig, resumed: RunDirectory | None) -> Known | None:
    """The weights that a run begins with; None if it begins with random ones.

    A resumed run has a copy of them in its directory.

    Raises:
        NonegError: there are no such weights, or they are of another network.
    """
    if config.start is None:
        return None
    if config.continue_from is not None:
        raise NonegError("--start and --continue-from both say how a run begins: give one of them")
    if resumed is not None and resumed.start.is_dir():
        return _of_encoder(resumed.start, config)
    directory = Path(config.start).expanduser()
    if not is_known(config.start) and directory.is_dir():
        run = RunDirectory(directory)
        return _of_encoder(run.encoder if run.encoder.is_dir() else directory, config)
    return find_known(config.start, config.backbone)


def _of_encoder(directory: Path, config: TrainConfig) -> Known:
    """The weights of an encoder of noneg's."""
    assert config.start is not None
    info = read_encoder_info(directory)
    if config.backbone not in ("auto", info.backbone):
        raise NonegError(
            f"{config.start} has the backbone {info.backbone}, and a run that starts from it "
            f"cannot have {config.backbone}: leave --backbone out"
        )
    # GroupNorm has no statistics; the other two differ only in when they are measured.
    if (config.norm == "group") != (info.norm == "group"):
        raise NonegError(
            f"{config.start} was trained with --norm {info.norm}, and a run that starts from it "
            f"cannot have {config.norm}: give --norm {info.norm}"
        )
    return Known(
        source=config.start,
        backbone=info.backbone,
        file=directory / WEIGHTS,
        size=info.size,
        mean=info.mean,
        std=info.std,
        interpolation=info.interpolation,
        license=None,
        settings={"input_size": (info.channels, info.size, info.size)},
    )


def load_start(known: Known, plan: Plan, images: Images) -> Start:
    """Read the weights into the network of the run.

    Args:
        known: from `find_start`.
        plan: of the run.
        images: of the run; their mean and std count if the weights do not say any.

    Raises:
        NonegError: the weights cannot be downloaded or read, or nothing of them fits.
    """
    module, fit = load_known(known, channels=plan.channels, size=plan.size, norm=plan.config.norm)
    info = describe_encoder(module, plan, images, known)
    described = replace(info, method="none", data={"description": known.describe()})
    return Start(known, Encoder(module, described), fit)
