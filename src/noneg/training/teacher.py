"""The teacher of a distillation: a frozen encoder, and its features of the run's images."""

import math

import numpy as np
import torch
from jaxtyping import Float32

from noneg.encoder import Encoder, EncoderInfo, load
from noneg.errors import NonegError
from noneg.files import whole_or_not_at_all
from noneg.images import Images, ImageSource, PixelsOnDemand
from noneg.methods.base import HasTeacher, Method
from noneg.networks.backbones import build_backbone
from noneg.networks.own import is_own
from noneg.progress import progress_bar
from noneg.records.directory import RunDirectory
from noneg.training.data import measure_normalization
from noneg.training.distributed import from_first_process
from noneg.training.plan import Plan

_BLOCK = 512


def teacher_of(plan: Plan) -> str | None:
    """The teacher that a run's options name; None if its method has none.

    Raises:
        NonegError: the method needs one, and there is none.
    """
    teacher = getattr(plan.config.options, "teacher", None)
    if teacher == "":
        raise NonegError(
            f"{plan.config.method} needs a teacher: --options.teacher timm:resnet18, "
            "local-dir:FOLDER, or the directory of a run or an encoder"
        )
    return teacher


def load_teacher(name: str, plan: Plan, source: ImageSource) -> Encoder:
    """The frozen encoder.

    A network of one's own sees the images as the student does: at its size, with their own mean and
    standard deviation.

    Raises:
        NonegError: there is no such network, or it takes other images.
    """
    if is_own(name):
        module = build_backbone(name, channels=plan.channels, size=plan.size)
        pixels = np.stack(
            [source.read(i, plan.channels, plan.size) for i in range(min(256, len(source)))]
        )
        mean, std = measure_normalization(pixels)
        width = module.num_features
        assert isinstance(width, int)
        info = EncoderInfo(
            name, plan.channels, plan.size, plan.size, mean, std, width, method="none"
        )
        return Encoder(module, info)
    encoder = load(name)
    if encoder.info.channels != plan.channels:
        raise NonegError(
            f"the teacher {name} takes images of {encoder.info.channels} channels, and the run has "
            f"{plan.channels}: give --channels {encoder.info.channels}"
        )
    return encoder


def teach(
    method: Method, teacher: Encoder, images: Images, run: RunDirectory, *, progress: bool = False
) -> None:
    """Give the method the teacher's features, computed once and kept in the run's directory.

    Raises:
        NonegError: the method has no use for them, or images are decoded on demand.
    """
    if not isinstance(method, HasTeacher):
        raise NonegError(f"{type(method).__name__} has no set_targets for its teacher's features")
    if isinstance(images.pixels, PixelsOnDemand):
        raise NonegError("a teacher sees all images first: give --cache memory or disk")
    pixels, shape = images.pixels, (len(images.pixels), teacher.info.features)

    def make() -> None:
        if _kept(run, shape) is None:
            _write(run, _embed(teacher, pixels, progress))

    # The other processes wait, and read what the first one wrote.
    from_first_process(make)
    features = _kept(run, shape)
    if features is None:
        # Another machine, without a disk in common.
        features = _embed(teacher, pixels, progress)
    if not np.isfinite(features).all():
        raise NonegError("the teacher's features hold NaN or infinite values: give another teacher")
    method.set_targets(torch.from_numpy(features))


def _write(run: RunDirectory, features: Float32[np.ndarray, "images width"]) -> None:
    with whole_or_not_at_all(run.teacher_features) as unfinished, unfinished.open("wb") as file:
        np.save(file, features)


def _kept(run: RunDirectory, shape: tuple[int, int]) -> Float32[np.ndarray, "images width"] | None:
    try:
        features = np.load(run.teacher_features, allow_pickle=False)
    except (OSError, ValueError):
        return None
    is_complete = features.shape == shape and features.dtype == np.float32
    return features if is_complete else None


def _embed(
    teacher: Encoder, pixels: np.ndarray, progress: bool
) -> Float32[np.ndarray, "images width"]:
    blocks = []
    with progress_bar(
        total=math.ceil(len(pixels) / _BLOCK), desc="teacher", unit="blocks", shown=progress
    ) as bar:
        for start in range(0, len(pixels), _BLOCK):
            blocks.append(teacher.embed_pixels(np.asarray(pixels[start : start + _BLOCK])))
            bar.update()
    return np.concatenate(blocks)
