"""Build the networks of a run from its seed, and describe its encoder."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from noneg.encoder import EncoderInfo, normalized_images
from noneg.errors import NonegError
from noneg.images import Images, PixelsOnDemand
from noneg.methods import find_method
from noneg.methods.base import Method
from noneg.networks.backbones import build_backbone
from noneg.networks.layers import freeze_stages
from noneg.networks.norms import measure_statistics, use_group_norm
from noneg.networks.patch_whitening import has_whitening, measure_whitening
from noneg.networks.pretrained import Known
from noneg.training.batches import epoch_order
from noneg.training.data import measure_normalization
from noneg.training.hardware import keep_freed_memory
from noneg.training.plan import Plan
from noneg.views import draw_views, view_sizes

_WHITENED_IMAGES = 1_000


def build_method(plan: Plan, start: nn.Module | None = None) -> Method:
    """A backbone and its heads, with weights that depend only on the seed, and on the start.

    The backbone's weights are sampled first, so `noneg.evaluation.scores.untrained` can sample them
    again. The global random state does not change.

    Args:
        plan: of the run.
        start: a backbone whose weights are copied; targets are copies of it, too.

    Raises:
        NonegError: the backbone does not accept all sizes of the views.
    """
    config = plan.config
    definition = find_method(config.method)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        backbone = build_backbone(
            plan.backbone, channels=plan.channels, size=plan.size, norm=config.norm
        )
        _check_view_sizes(backbone, plan)
        if start is not None:
            backbone.load_state_dict(start.state_dict())
        method = definition.build(backbone, feature_width(backbone), config.options)
    if config.norm == "group":
        use_group_norm(method)
    if config.freeze:
        stages = freeze_stages(method.backbone, config.freeze)
        if config.freeze > stages:
            raise NonegError(f"--freeze {config.freeze}: {plan.backbone} has {stages} stages")
    return method


@torch.no_grad()
def _check_view_sizes(backbone: nn.Module, plan: Plan) -> None:
    for size in set(view_sizes(plan.policy, plan.size)) - {plan.size}:
        backbone.eval()
        try:
            backbone(torch.zeros(1, plan.channels, size, size))
        except Exception as error:
            raise NonegError(
                f"the backbone {plan.backbone} takes images of {plan.size} px, but some of the "
                f"views have {size} px: choose --views of one size, or a convolutional backbone"
            ) from error
        finally:
            backbone.train()


@torch.no_grad()
def find_wasted_stride(backbone: nn.Module, plan: Plan) -> str | None:
    """The name of the first strided convolution whose input is a single pixel; else None.

    Its stride has no effect: the images are too small for the backbone.
    """
    found: list[str] = []

    def look(name: str) -> None:
        def hook(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            assert isinstance(layer, nn.Conv2d)
            if max(layer.stride) > 1 and max(inputs[0].shape[-2:]) == 1:
                found.append(name)

        hooks.append(layer.register_forward_pre_hook(hook))

    hooks: list[torch.utils.hooks.RemovableHandle] = []
    for name, layer in backbone.named_modules():
        if isinstance(layer, nn.Conv2d):
            look(name)
    was_training = backbone.training
    backbone.eval()
    try:
        for size in sorted(set(view_sizes(plan.policy, plan.size)), reverse=True):
            backbone(torch.zeros(1, plan.channels, size, size))
    finally:
        backbone.train(was_training)
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def feature_width(backbone: nn.Module) -> int:
    """The width D of the representations [B, D]."""
    width = backbone.num_features
    assert isinstance(width, int)
    return width


def describe_encoder(
    backbone: nn.Module, plan: Plan, images: Images, start: Known | None = None
) -> EncoderInfo:
    """What is needed to use the backbone after training; images are prepared as for the start."""
    config = plan.config
    normalization = None if start is None else start.normalization(plan.channels)
    if normalization is None and (config.mean is None or config.std is None):
        on_demand = isinstance(images.pixels, PixelsOnDemand)
        normalization = measure_normalization(images.pixels, most=1_000 if on_demand else 5_000)
    mean, std = normalization or ((), ())
    return EncoderInfo(
        backbone=plan.backbone,
        channels=plan.channels,
        size=plan.size,
        stored_size=images.pixels.shape[-1],
        mean=config.mean or mean,
        std=config.std or std,
        features=feature_width(backbone),
        method=config.method,
        norm=config.norm,
        interpolation=config.interpolation
        or ("bilinear" if start is None else start.interpolation),
        data={
            "description": images.description,
            "images": len(images.pixels),
            "skipped": len(images.skipped),
            **({} if start is None else {"start": start.describe()}),
        },
    )


def measure_first_layer(network: nn.Module, images: Images, plan: Plan, info: EncoderInfo) -> None:
    """Measure the whitening of patches, if the backbone has one, on the first images of the run."""
    if not has_whitening(network):
        return
    index = epoch_order(plan.config.seed, 0, len(images.pixels))[:_WHITENED_IMAGES]
    pixels = torch.from_numpy(images.pixels[index.numpy()])
    measure_whitening(network, normalized_images(pixels, info))


def measure_norms(method: Method, images: Images, plan: Plan, info: EncoderInfo) -> None:
    """Set BatchNorm's statistics to those of the first 256 images of the first epoch.

    Statistics that came with a start are kept.
    """
    views = draw_first_views(images, plan, info, most=256)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.config.seed)
        measure_statistics(method, lambda: method.embed(views))


def draw_first_views(
    images: Images, plan: Plan, info: EncoderInfo, most: int
) -> tuple[Float[Tensor, "batch channels _ _"], ...]:
    """The views of at most `most` images, the first ones of the first epoch, on the CPU."""
    index = epoch_order(plan.config.seed, 0, len(images.pixels))[:most]
    return draw_views(
        torch.from_numpy(images.pixels[index.numpy()]),
        index,
        plan.policy,
        size=plan.size,
        seed=plan.config.seed,
        epoch=0,
        mean=info.mean,
        std=info.std,
    )


def arrange_memory(method: Method, plan: Plan) -> None:
    """Speed up a run: channels-last memory for convolutions; on CPUs, keep freed memory."""
    if plan.hardware.on_cpu:
        keep_freed_memory()
    has_convolutions = any(isinstance(each, nn.Conv2d) for each in method.backbone.modules())
    # FSDP only takes contiguous weights.
    if has_convolutions and plan.config.strategy != "fsdp":
        method.to(memory_format=torch.channels_last)
