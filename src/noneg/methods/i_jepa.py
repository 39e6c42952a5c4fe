"""I-JEPA: predict hidden blocks of patches, as features (Assran et al., 2301.08243).

What keeps it from collapsing: as in BYOL, a predictor and a target, which gets no gradient and
follows by a moving average. It sees the whole view; the online network sees one large block without
the patches that are predicted. Views differ by their crop alone, so this learns without color
jitter and flips, but slowly: the paper trains for 300 to 600 epochs of ImageNet. In minutes, or on
a few thousand images, other methods of noneg are better.

The signs of a collapse: targets that do not differ between images, or only between places; then
`z`, the mean target of a view, is the same for all images, and the loss falls to 0.

It needs a vision transformer that returns the mean of its patches. The encoder that is handed over
is the online network; the authors use the target.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import final

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from noneg.errors import NonegError
from noneg.losses import patch_prediction
from noneg.methods.base import Embeddings, Loss, Method
from noneg.methods.limits import check_options, option_flag
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.masked_transformer import (
    PatchPredictor,
    check_transformer,
    grid_of,
    patch_tokens,
    take_tokens,
)
from noneg.networks.patch_blocks import draw_blocks
from noneg.networks.target import copy_as_target, update_target

TRAITS = Traits(family="online-target", predictor=True, teacher=True)


@dataclass(frozen=True)
class Options:
    """Paper, section 3 and appendix A.

    Args:
        blocks: number of blocks that are predicted.
        target_scale: area of each, as a share of the view's: lowest and highest.
        target_aspect: height over width of each: lowest and highest.
        context_scale: area of the block that is seen, without the patches that are predicted.
        predictor_width: width of the predictor's layers, a multiple of 32.
        predictor_depth: number of its layers.
        tau: decay of the moving average per step at the start; it rises to 1 linearly.
    """

    blocks: int = 4
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    predictor_width: int = 384
    predictor_depth: int = 12
    tau: float = 0.996

    def __post_init__(self) -> None:
        check_options(
            self, counts=("blocks", "predictor_width", "predictor_depth"), shares=("tau",)
        )
        for name, most in (("target_scale", 1), ("target_aspect", inf), ("context_scale", 1)):
            low, high = getattr(self, name)
            if not 0 < low <= high <= most:
                raise NonegError(
                    f"{option_flag(name)} must be the lowest and the highest, above 0"
                    f"{' and at most 1' if most == 1 else ''}, not {[low, high]}"
                )


RECIPES = {
    # The authors' weight decay rises to 0.4. They have one view of 2048 images.
    "paper": Recipe(
        options=Options(),
        epochs=600,
        batch_size=1024,
        optimizer="adamw",
        learning_rate=1.25e-4,
        weight_decay=0.04,
        warmup_epochs=40.0,
        views="crops",
    ),
    # Not tuned.
    "small": Recipe(
        options=Options(predictor_width=64, predictor_depth=2, tau=0.99),
        batch_size=64,
        optimizer="adamw",
        learning_rate=4e-3,
        weight_decay=0.04,
        views="crops",
    ),
}


def causes(state: str, options: Options, batch_size: int | None) -> Iterator[str]:
    """It was short."""
    if state in ("complete collapse", "dimensional collapse", "not learning"):
        yield (
            "predicting patches takes hundreds of epochs: train for many more --epochs, at half "
            "the --learning-rate, or choose --method vicreg"
        )


@final
class IJEPA(Method):
    """From some patches, a predictor finds the target network's output for others."""

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Build the predictor and the target on a vision transformer of `width` features.

        Raises:
            NonegError: the backbone is no vision transformer that returns the mean of its patches.
        """
        super().__init__(backbone)
        self.options = options
        self.width = width
        check_transformer(backbone, "i_jepa")
        self.predictor = PatchPredictor(width, options.predictor_width, options.predictor_depth)
        self.target = copy_as_target(self.backbone)

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """As in a step, with blocks that depend on the position in the batch."""
        return self.embed_in_step(views, 0, torch.arange(len(views[0])))

    def embed_in_step(
        self, views: tuple[Tensor, ...], key: int, index: Int[Tensor, "batch"]
    ) -> Embeddings:
        """The mean target of each view, predictions of its blocks, and the target's output there.

        Raises:
            NonegError: the views differ in size.
        """
        if len({view.shape[-1] for view in views}) > 1:
            raise NonegError(
                "i_jepa predicts parts of a view from the rest of it, and small views would have "
                "fewer parts: choose --views of one size, such as crops"
            )
        with torch.no_grad():
            h = torch.stack([self.backbone(view) for view in views])
        numbers = index.cpu().numpy()
        parts = [self._predict(views[view], key, numbers, view) for view in range(len(views))]
        z, p, t = (torch.stack(each) for each in zip(*parts, strict=True))
        return Embeddings(h=h, z=z, p=p, t=t)

    def _predict(
        self, images: Tensor, key: int, index: Int64[np.ndarray, "batch"], view: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`z`, `p` and `t` of one view of each image."""
        options = self.options
        grid = grid_of(self.backbone, images)
        drawn = draw_blocks(
            key,
            index,
            grid,
            view=view,
            blocks=options.blocks,
            target_scale=options.target_scale,
            target_aspect=options.target_aspect,
            context_scale=options.context_scale,
        )
        targets = torch.from_numpy(drawn.targets).to(images.device)
        # Images see different numbers of patches: the others are filled up, not cut, so that an
        # image's prediction does not depend on its batch.
        counts = drawn.context.sum(axis=1)
        order = np.argsort(~drawn.context, axis=1, kind="stable")[:, : counts.max()]
        seen = torch.from_numpy(order).to(images.device)
        is_seen = torch.from_numpy(np.arange(counts.max()) < counts[:, None]).to(images.device)

        with torch.no_grad():
            every = patch_tokens(self.target, images)
            t = take_tokens(every, targets.flatten(1))
            z = layer_norm(every, (self.width,)).mean(dim=1)
        tokens = patch_tokens(self.backbone, images, seen, is_seen)
        p = self.predictor(tokens, seen, is_seen, targets, grid)
        return z, p.flatten(1), t.flatten(1)

    def objective(self, e: Embeddings) -> Loss:
        """Distance of predictions from normalized targets (authors' code)."""
        assert e.p is not None
        assert e.t is not None
        p, t = (each.reshape(*each.shape[:-1], -1, self.width) for each in (e.p, e.t))
        loss = patch_prediction(p, t)
        return Loss(loss, {"prediction": loss})

    def after_step(self, progress: float) -> None:
        """Update the target by a moving average of the online network."""
        tau = self.options.tau + (1 - self.options.tau) * progress
        update_target(self.target, self.backbone, decay=tau)
