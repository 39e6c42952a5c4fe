"""Backbones by name: modules that map each image to one vector, of a known width.

The networks are timm's, with another stem for small images: a network made for 224 pixels halves
the side five times, so a 32 pixel image would reach its last stage as a single pixel.
"""

import copy
import difflib
import fnmatch
import warnings
from collections import OrderedDict
from functools import partial
from typing import Any, cast

import timm
import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from noneg.errors import NonegError
from noneg.networks import Norm
from noneg.networks.norms import use_group_norm
from noneg.networks.own import build_own, is_own
from noneg.networks.small_convnet import MeanOverPlaces, SmallConvnet

SMALL = "small_convnet"
"""Default for small images and CPUs: whitened patches, four convolutions, 256 features."""

SMALL_RESNET = "small_resnet"
"""The first default: four residual blocks, 1.2 million weights, 256 features."""

REGISTERED = "noneg_"
"""What the names of noneg's networks within timm begin with."""

OURS = (SMALL, SMALL_RESNET)

LARGEST_SIDE_WITH_SMALL_STEM = 64
"""In pixels."""


def list_backbones(pattern: str = "*") -> list[str]:
    """Names that `build_backbone` takes: noneg's first, then timm's in alphabetical order.

    Args:
        pattern: a shell pattern such as `"resnet*"`.
    """
    # Those that `noneg.networks.registered` gives timm are noneg's own under other names.
    return fnmatch.filter(OURS, pattern) + list(
        timm.list_models(pattern, exclude_filters=[f"{REGISTERED}*"])
    )


def build_backbone(name: str, *, channels: int, size: int, norm: Norm = "batch") -> nn.Module:
    """Build a backbone with random weights, sampled from torch's global generator.

    timm's ResNet family gets the CIFAR stem (He et al. 2016, arXiv 1512.03385, section 4.2; used by
    SimCLR, arXiv 2002.05709, appendix B.9) for images of up to 64 pixels: a 3 x 3 convolution of
    stride 1 instead of the 7 x 7 of stride 2, and no max-pooling.

    Args:
        name: any name of `list_backbones()`, such as `"small_convnet"` or `"resnet18"`; or a
            network of one's own (see `noneg.networks.own`), whose feature maps are averaged.
        channels: channels of the images, at least 1.
        size: side of the square images in pixels. It decides the stem of a ResNet and the position
            embeddings of a transformer; a convolutional network also runs on other sizes.
        norm: "group" replaces BatchNorm by GroupNorm; "frozen" is built like "batch".

    Returns:
        A module in training mode, float [B, channels, size, size] -> [B, D]. Its `num_features`
        is D, the width of its output.

    Raises:
        NonegError: the name is unknown, the size does not divide into a transformer's patches,
            the network cannot be built or run at this size, or its output is not one vector per
            image.
    """
    if channels < 1 or size < 1:
        raise NonegError(
            f"A backbone needs at least 1 channel and 1 pixel, but got channels={channels} and "
            f"size={size}; give positive numbers."
        )
    backbone: nn.Module
    if name == SMALL:
        backbone = SmallConvnet(channels)
    elif name == SMALL_RESNET:
        backbone = _small_resnet(channels)
    elif is_own(name):
        backbone = build_own(name, channels=channels, size=size)
        backbone = _pooled_if_map(backbone.train(), name, channels, size)
    else:
        backbone = _from_timm(name, channels, size)
    if norm == "group":
        use_group_norm(backbone)
    # timm's num_features is the width before the head's hidden layer (MobileNetV3 says 576 and
    # returns 1024), so the width is measured.
    setattr(backbone, "num_features", _output_width(backbone, name, channels, size))  # noqa: B010
    if not name.startswith("<"):
        again = partial(build_backbone, name, channels=channels, size=size, norm=norm)
        setattr(backbone, "build_again", again)  # noqa: B010
    return backbone


def build_another(backbone: nn.Module) -> nn.Module:
    """A network of the same kind with other random weights, sampled in the same way.

    How a module was made that `build_backbone` did not build, or that it copied from memory, is
    not known: it is copied, and its layers are reset to PyTorch's usual random weights.
    """
    again = getattr(backbone, "build_again", None)
    if again is not None:
        another: nn.Module = again()
        return another
    another = copy.deepcopy(backbone)
    for module in another.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    return another


def _small_resnet(channels: int) -> ResNet:
    network = ResNet(
        cast(Any, BasicBlock),
        (1, 1, 1, 1),
        channels=(32, 64, 128, 256),
        num_classes=0,
        in_chans=channels,
    )
    _use_small_stem(network, channels, stride=2)
    return network


def _from_timm(name: str, channels: int, size: int) -> nn.Module:
    known = [*list_backbones(), *timm.list_models(f"{REGISTERED}*")]
    # timm's names may have a tag, which says where weights are from: resnet18.a1_in1k.
    if name.partition(".")[0] not in known or not timm.is_model(name):
        close = difflib.get_close_matches(name, known, n=3)
        suggestion = f" did you mean {' or '.join(close)}?" if close else ""
        raise NonegError(
            f"There is no backbone named {name!r};{suggestion} "
            f"`noneg list backbones` shows them all."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network: nn.Module = timm.create_model(
                name,
                pretrained=False,
                in_chans=channels,
                num_classes=0,
                **image_size_argument(name, size),
            )
    except Exception as error:
        raise NonegError(
            f"Backbone {name!r} cannot be built for {channels} channels of {size} x {size} pixels "
            f"({first_line(error)}); choose another size or another backbone."
        ) from error
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    # timm would silently crop the pixels that do not fill a patch.
    if isinstance(patch, tuple) and any(size % side for side in patch):
        raise NonegError(
            f"Images of {size} x {size} pixels do not divide into the {patch[0]} x {patch[1]} "
            f"patches of backbone {name!r}; choose a size that is a multiple of {max(patch)}."
        )
    if isinstance(network, ResNet) and size <= LARGEST_SIDE_WITH_SMALL_STEM:
        _use_small_stem(network, channels, stride=1)
    return network


def image_size_argument(name: str, size: int) -> dict[str, Any]:
    """What `timm.create_model` needs for networks of a fixed input size; others refuse it."""
    settings = timm.get_pretrained_cfg(name)
    return {"img_size": size} if settings is not None and settings.fixed_input_size else {}


def _use_small_stem(network: ResNet, channels: int, *, stride: int) -> None:
    stem = network.get_submodule("conv1")
    if isinstance(stem, nn.Conv2d):
        convolution = nn.Conv2d(channels, stem.out_channels, 3, stride, padding=1, bias=False)
        # timm initializes all convolutions of a ResNet like this.
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        network.set_submodule("conv1", convolution)
    else:
        # "Deep" stems (ResNet-D) are 3 x 3 convolutions already.
        first = network.get_submodule("conv1.0")
        assert isinstance(first, nn.Conv2d)
        first.stride = (stride, stride)
    network.set_submodule("maxpool", nn.Identity())


def _pooled_if_map(network: nn.Module, name: str, channels: int, size: int) -> nn.Module:
    """The network; if it returns feature maps, with their mean over places behind it."""
    output = _try(network, name, channels, size)
    if isinstance(output, torch.Tensor) and output.ndim == 4:
        return nn.Sequential(OrderedDict(network=network, mean=MeanOverPlaces()))
    return network


def _output_width(backbone: nn.Module, name: str, channels: int, size: int) -> int:
    output = _try(backbone, name, channels, size)
    if not isinstance(output, torch.Tensor) or output.ndim != 2:
        shape = list(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise NonegError(
            f"Backbone {name!r} returns {shape} for one image, but a single vector [1, D] is "
            f"needed; choose another backbone."
        )
    return int(output.shape[1])


def _try(backbone: nn.Module, name: str, channels: int, size: int) -> object:
    """The output for one black image."""
    # Evaluation mode leaves batch statistics and the random state unchanged.
    was_training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            output: object = backbone(torch.zeros(1, channels, size, size))
            return output
    except Exception as error:
        raise NonegError(
            f"Backbone {name!r} does not run on images of {size} x {size} pixels "
            f"({first_line(error)}); choose a larger size or another backbone."
        ) from error
    finally:
        backbone.train(was_training)


def first_line(error: Exception) -> str:
    """What an error of a library says, for a sentence of ours."""
    return (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".")
