"""A frozen first layer that whitens small patches, measured on the images of a run.

Neighboring pixels are almost equal, so a first layer with random weights passes on little but the
mean brightness, and training begins by undoing that. Whitening gives all directions of a patch
the same variance at once (Coates et al. 2011, PMLR 15:215-223, section 3; as a fixed first
convolution: Jordan 2024, arXiv 2404.00498, section 3.2).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d

from noneg.errors import NonegError

SMALLEST_VARIANCE = 1e-2
"""Added to each direction's variance, as a share of the mean variance of a pixel: directions with
less are noise, or do not occur at all in flat or gray images."""


class PatchWhitening(nn.Module):
    """Principal directions of the patches, each scaled to variance 1, and their negatives.

    Both signs, because the activation that follows lets positive values pass. The weights are not
    trained; the bias is.

    Args:
        channels: of the images, at least 1.
        side: of a patch, in pixels; patches are one pixel apart and must lie inside the image.
    """

    weight: Tensor

    def __init__(self, channels: int, side: int = 2) -> None:
        """Before `measure` is called, the directions are the patch's single numbers."""
        super().__init__()
        self.side = side
        numbers = channels * side**2
        self.register_buffer("weight", _both_signs(torch.eye(numbers), channels, side))
        self.bias = nn.Parameter(torch.zeros(2 * numbers))

    @property
    def out_channels(self) -> int:
        """Twice the numbers in a patch."""
        return len(self.bias)

    def forward(self, images: Float[Tensor, "b c s s"]) -> Float[Tensor, "b out _ _"]:
        """[B, C, S, S] -> [B, 2 C side^2, S - side + 1, S - side + 1]."""
        return conv2d(images, self.weight.to(images.dtype), self.bias)

    @torch.no_grad()
    def measure(self, images: Float[Tensor, "n c s s"]) -> None:
        """Set the weights from all patches of these images, without labels.

        Args:
            images: normalized as in training, at least `side` pixels wide.

        Raises:
            NonegError: the images are smaller than a patch.
        """
        channels, side = images.shape[1], self.side
        if images.shape[-1] < side:
            raise NonegError(
                f"The images have {images.shape[-1]} x {images.shape[-1]} pixels, which is less "
                f"than a patch of {side} x {side}; give a larger --size."
            )
        numbers = channels * side**2
        total = torch.zeros(numbers, dtype=torch.float64)
        second = torch.zeros(numbers, numbers, dtype=torch.float64)
        count = 0
        # A few images at a time, because patches take side^2 times the memory of the images.
        for some in torch.split(images, 256):
            patches = some.unfold(2, side, 1).unfold(3, side, 1)
            flat = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, numbers).double()
            total += flat.sum(dim=0)
            second += flat.T @ flat
            count += len(flat)
        mean = total / count
        covariance = second / count - torch.outer(mean, mean)
        variance, directions = torch.linalg.eigh(covariance)
        # Flat images have no variance at all.
        floor = max(SMALLEST_VARIANCE * float(variance.mean()), 1e-6)
        scaled = directions / (variance.clamp_min(0) + floor).sqrt()
        # The sign of an eigenvector is arbitrary and may differ between machines.
        largest = directions.abs().argmax(dim=0)
        signs = directions.gather(0, largest[None]).sign()
        self.weight.copy_(_both_signs((scaled * signs).flip(1).T.float(), channels, side))


def _both_signs(
    filters: Float[Tensor, "numbers numbers"], channels: int, side: int
) -> Float[Tensor, "out channels side side"]:
    shaped = filters.reshape(-1, channels, side, side)
    return torch.cat([shaped, -shaped])


def measure_whitening(module: nn.Module, images: Float[Tensor, "n c s s"]) -> None:
    """Measure every patch whitening in a module on the same images."""
    for each in _whitenings(module):
        each.measure(images)


def has_whitening(module: nn.Module) -> bool:
    """Whether a module has weights that are measured on images."""
    return bool(_whitenings(module))


@torch.no_grad()
def copy_whitening(source: nn.Module, target: nn.Module) -> None:
    """Give every patch whitening of `target` the measured weights of its twin in `source`."""
    for one, other in zip(_whitenings(source), _whitenings(target), strict=True):
        other.weight.copy_(one.weight)


def _whitenings(module: nn.Module) -> list[PatchWhitening]:
    return [each for each in module.modules() if isinstance(each, PatchWhitening)]
