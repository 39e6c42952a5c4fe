"""The built-in images at 32 px and their views, for benchmarks that do not measure views."""

import torch
from torch import Tensor

from noneg.images.shapes import draw_shapes
from noneg.training.plan import Plan
from noneg.training.step import Views
from noneg.views import draw_views


def shapes_pixels(count: int) -> Tensor:
    """uint8 [count, 3, 32, 32]."""
    return torch.from_numpy(draw_shapes(count, seed=0).pixels)


def shapes_views(images: Tensor, index: Tensor, plan: Plan, epoch: int = 0) -> Views:
    """The plan's views of some of these images."""
    return draw_views(
        images,
        index,
        plan.policy,
        size=plan.size,
        seed=0,
        epoch=epoch,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
