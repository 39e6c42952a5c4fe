"""SIGReg (Balestriero and LeCun, LeJEPA, arXiv 2511.08544): are embeddings a standard Gaussian?

In a direction a, the characteristic function of the projections y = z a is compared with that of a
standard Gaussian (Epps and Pulley 1983):

    T(a) / n = integral of |mean_i e^(i t y_i) - e^(-t^2 / 2)|^2 e^(-t^2 / 2) dt

The method asks for the mean of T(a) over all unit vectors a. The authors sample directions. But the
mean has a closed form, without noise (KerJEPA, arXiv 2512.19605, theorem 7): the integral is a sum
over pairs of e^(-(a . (z_i - z_j))^2 / 2), and the squared cosine B between a random a and a fixed
vector has a Beta(1/2, (d - 1) / 2) distribution. With k(s) = E e^(-s B),

    T / n = sqrt(2 pi) mean_ij k(|z_i - z_j|^2 / 2) - 2 sqrt(pi) mean_i k(|z_i|^2 / 4)
            + sqrt(2 pi / 3)
"""

import math
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize

from noneg.losses.inputs import in_full_precision

NODES = 32
"""Of the quadrature for k: to 1e-11 for s up to 4 d (a Gaussian has s = d), 1e-6 up to 30 d."""

KNOTS, REACH = 17, 6.0
"""Of the integral over t, sliced: beyond 6 the weight is below 1e-7."""


@in_full_precision
def sigreg(
    z: Float[Tensor, "views batch width"], *, slices: int | None = None, reach: float = REACH
) -> Float[Tensor, ""]:
    """How far each view's embeddings are from a standard Gaussian; the mean over views.

    Convention: T / n, so that its weight does not depend on the batch; the authors have T. The
    integral is over the whole line; the authors' minimal example integrates from -3 to 3, which
    gives 0.994 of it for a Gaussian and 0.983 for zeros. Embeddings are not centered or normalized.

    Closed form: O(batch^2 width) and NODES exponentials per pair. Sliced: O(batch width slices) and
    one sine and cosine per embedding and slice.

    Args:
        z: embeddings of at least one view and image; bfloat16 and float16 become float32.
        slices: None is the mean over all directions. A number samples so many directions from
            torch's generator, as the authors do; the value is noisy, and right on average as long
            as projections stay below about 8: with equally spaced t, larger ones look like others.
        reach: the largest t, if sliced; 3 in the authors' minimal example, 5 in the paper.

    Returns:
        T / n >= 0 up to rounding; 1.0594 / n on average for a standard Gaussian of any width, and
        0.4089 for zeros, at which the gradient is 0.
    """
    if slices is None:
        value: Tensor = _AllDirections.apply(z)
        return value
    # From the CPU's generator, so that a seed means the same on every device.
    directions = normalize(torch.randn(z.shape[2], slices, dtype=z.dtype), dim=0).to(z.device)
    sliced: Tensor = _Slices.apply(z @ directions, reach)
    return sliced


@cache
def squared_cosines(width: int) -> tuple[list[float], list[float]]:
    """Nodes B in [0, 1] and weights of Gauss-Legendre quadrature for E e^(-s B).

    With B the squared sine of an angle, its density is cos^(width - 2), which is negligible beyond
    7 / sqrt(width - 2).
    """
    if width == 1:
        return [1.0], [1.0]
    # The nodes on [-1, 1] are eigenvalues (Golub and Welsch 1969).
    step = torch.arange(1, NODES, dtype=torch.float64)
    beside = step / torch.sqrt(4 * step.square() - 1)
    nodes, vectors = torch.linalg.eigh(torch.diag(beside, -1) + torch.diag(beside, 1))
    furthest = min(math.pi / 2, 7 / math.sqrt(max(width - 2, 1)))
    angle = (nodes + 1) / 2 * furthest
    weights = vectors[0].square() * angle.cos() ** (width - 2)
    return angle.sin().square().tolist(), (weights / weights.sum()).tolist()


def _kernel(s: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The kernel k, and its derivative."""
    value, slope = torch.zeros_like(s), torch.zeros_like(s)
    power = torch.empty_like(s)
    for node, weight in zip(*squared_cosines(width), strict=True):
        torch.mul(s, -node, out=power).exp_()
        value.add_(power, alpha=weight)
        slope.add_(power, alpha=-weight * node)
    return value, slope


class _AllDirections(torch.autograd.Function):
    """The gradient is computed with the value, because it needs the same exponentials."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        views, batch, width = z.shape
        one, other = torch.tril_indices(batch, batch, -1, device=z.device)
        total = z.new_zeros(())
        gradient = torch.empty_like(z)
        for view, pulled in zip(z, gradient, strict=True):
            # Distances do not depend on the mean, but their rounding errors do.
            centered = view - view.mean(dim=0)
            squares = centered.square().sum(dim=1)
            products = centered @ centered.T
            # Each pair once; an embedding and itself have k(0) = 1.
            apart = (squares[one] + squares[other] - 2 * products[one, other]).clamp_(min=0)
            pairs, pair_slopes = _kernel(apart / 2, width)
            own, own_slopes = _kernel(view.square().sum(dim=1) / 4, width)
            total += math.sqrt(2 * math.pi) * (2 * pairs.sum() + batch) / batch**2
            total -= 2 * math.sqrt(math.pi) * own.mean()
            slopes = torch.zeros_like(products)
            slopes[one, other] = pair_slopes
            slopes += slopes.T.clone()
            torch.mul(centered, slopes.sum(dim=1, keepdim=True), out=pulled).sub_(slopes @ centered)
            pulled.mul_(2 * math.sqrt(2 * math.pi) / batch**2)
            pulled.sub_(view * own_slopes[:, None], alpha=math.sqrt(math.pi) / batch)
        ctx.save_for_backward(gradient / views)
        return total / views + math.sqrt(2 * math.pi / 3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient: Tensor = ctx.saved_tensors[0] * gradients[0]
        return gradient


class _Slices(torch.autograd.Function):
    """Knots are multiples of the first, so cosines and sines are powers of one complex number."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, reach: float) -> Tensor:
        step = reach / (KNOTS - 1)
        turn = torch.polar(torch.ones_like(y), step * y)
        power = torch.ones_like(turn)
        total = y.new_zeros(())
        gradient = torch.zeros_like(y)
        for number in range(1, KNOTS):
            t = number * step
            gaussian = math.exp(-(t**2) / 2)
            # The integrand is even: twice the trapezoids from 0, where it is 0.
            weight = (step if number == KNOTS - 1 else 2 * step) * gaussian
            power = power * turn
            off = power.mean(dim=1, keepdim=True) - gaussian
            total += weight * off.abs().square().sum()
            # d/dy |off|^2 = 2 Re(conj(off) i t e^(i t y)) / batch
            gradient.add_((off.conj() * power).imag, alpha=-2 * t * weight)
        views, batch, slices = y.shape
        ctx.save_for_backward(gradient / (views * batch * slices))
        return total / (views * slices)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * gradients[0], None
