"""VICReg trained by lightly: its data loading, views, projection head and loss.

"documented" is lightly's own example, examples/pytorch/vicreg.py: SGD, but at a tenth of its rate,
batches of 256, a projection head of 2048-2048-2048, the default views for 32 px. "ours" is noneg's
small recipe of VICReg in lightly's terms. In both, the network, its precision and its memory format
are those of noneg's run, and images are in memory, so that nothing but the library differs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from budget import Budget, train_within
from noneg.encoder import Encoder
from noneg.methods.vicreg import RECIPES, VICReg
from noneg.training.optimizers import build_optimizer, rate_share, set_learning_rates
from noneg.training.plan import choose_batch_size
from noneg.views import view_sizes
from same_network import SameNetwork

# At the example's rate of 0.06, without momentum, small_convnet diverges. Of 0.02 and 0.006, which
# were tried on held-out images, the lower one was better.
DOCUMENTED = {"batch_size": 256, "learning_rate": 0.006, "projector": [2048, 2048, 2048]}


@final
@dataclass(frozen=True)
class LightlyRun:
    """A network trained by lightly: its encoder, the steps, the images per step, CPU seconds."""

    encoder: Encoder
    steps: int
    batch_size: int
    seconds: float


def settings_of(recipe: Literal["documented", "ours"], images: int) -> dict[str, Any]:
    """What decides the run, as plain values, for a number of training images."""
    if recipe == "documented":
        return {"recipe": recipe, "optimizer": "sgd", "views": "VICRegTransform", **DOCUMENTED}
    ours = RECIPES["small"]
    batch_size = choose_batch_size(images, ours.batch_size)
    return {
        "recipe": recipe,
        "optimizer": ours.optimizer,
        "views": ours.views,
        "batch_size": batch_size,
        "learning_rate": ours.learning_rate * batch_size / 256,
        "weight_decay": ours.weight_decay,
        "projector": list(vars(ours.options)["projector"]),
        "covariance": vars(ours.options)["covariance"],
    }


def train_with_lightly(
    network: SameNetwork, budget: Budget, recipe: Literal["documented", "ours"]
) -> LightlyRun:
    """Train for as many steps as the budget holds; images are color, as lightly expects them."""
    from lightly.loss import VICRegLoss

    settings = settings_of(recipe, len(network.pixels))
    batch_size = min(settings["batch_size"], len(network.pixels))
    transform, mean, std = _views(network, recipe)
    # On one core, workers would only add their overhead, and CPU time that is not counted.
    workers = 0 if budget.cores == 1 else budget.cores
    loader = DataLoader(
        _Pictures(network.pixels, transform),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    criterion = VICRegLoss(nu_param=settings.get("covariance", 1.0))
    trained: list[nn.Module] = []

    def train(steps: int) -> Iterator[None]:
        backbone, width = network.build()
        head = _head(width, settings["projector"], recipe)
        trained[:] = [backbone.train()]
        optimizer: torch.optim.Optimizer
        if recipe == "documented":
            parameters = [*backbone.parameters(), *head.parameters()]
            optimizer = torch.optim.SGD(parameters, lr=settings["learning_rate"])
        else:
            method = VICReg(backbone, width, network.plan.config.options)
            method.projector = head
            optimizer = build_optimizer(method, network.plan.config, batch_size)
        for step, views in zip(range(steps), _endless(loader), strict=False):
            first, second = (view.contiguous(memory_format=torch.channels_last) for view in views)
            with network.autocast():
                z = [head(backbone(view)) for view in (first, second)]
            loss = criterion(z[0].float(), z[1].float())
            optimizer.zero_grad()
            loss.backward()
            if recipe == "ours":
                share = rate_share(step, steps, min(len(loader), steps // 10))
                set_learning_rates(optimizer, share)
            optimizer.step()
            yield

    steps, seconds = train_within(budget, train)
    encoder = network.encoder(trained[0], mean=mean, std=std)
    return LightlyRun(encoder, steps, batch_size, seconds)


def _head(width: int, projector: list[int], recipe: str) -> nn.Module:
    from lightly.models.modules.heads import BarlowTwinsProjectionHead, VICRegProjectionHead

    hidden, output = projector[0], projector[-1]
    head: nn.Module
    if recipe == "documented":
        head = BarlowTwinsProjectionHead(width, hidden, output)
    else:
        head = VICRegProjectionHead(width, hidden, output, num_layers=len(projector))
    return head


def _views(
    network: SameNetwork, recipe: str
) -> tuple[Callable[[Image.Image], list[Tensor]], tuple[float, ...], tuple[float, ...]]:
    """The transform of an image into two views, and the normalization in it."""
    from lightly.transforms import VICRegTransform
    from lightly.transforms.utils import IMAGENET_NORMALIZE

    size = network.plan.size
    transform: Callable[[Image.Image], list[Tensor]]
    if recipe == "documented":
        mean, std = (tuple(IMAGENET_NORMALIZE[name]) for name in ("mean", "std"))
        transform = VICRegTransform(input_size=size)
        return transform, mean, std
    view = network.plan.policy[0]
    size = view_sizes(network.plan.policy, size)[0]
    mean, std = network.info.mean, network.info.std
    transform = VICRegTransform(
        input_size=size,
        cj_prob=view.jitter,
        cj_strength=1.0,
        cj_bright=view.brightness,
        cj_contrast=view.contrast,
        cj_sat=view.saturation,
        cj_hue=view.hue,
        min_scale=view.crop_scale[0],
        random_gray_scale=view.grayscale,
        solarize_prob=view.solarize,
        gaussian_blur=view.blur,
        sigmas=view.blur_sigma,
        vf_prob=view.vertical_flip,
        hf_prob=view.flip,
        normalize={"mean": list(mean), "std": list(std)},
    )
    return transform, mean, std


def _endless(loader: DataLoader[list[Tensor]]) -> Iterator[list[Tensor]]:
    while True:
        yield from loader


@final
class _Pictures(Dataset[list[Tensor]]):
    def __init__(
        self, pixels: np.ndarray, transform: Callable[[Image.Image], list[Tensor]]
    ) -> None:
        self.pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(Image.fromarray(self.pixels[index]))
