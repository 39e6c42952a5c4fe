"""Off-diagonal energy of products of views, computed from the smaller of its two forms.

Let a and b be n x d, and c the diagonal of a'b. VICReg and Barlow Twins need the sum of the squares
of the other entries of a'b (d x d; in VICReg, b is a), the spectral contrastive loss that of ab'
(n x n). Because |a'b|_F^2 = <aa', bb'>_F, each can be computed from n x n or from d x d matrices,
with the same value and the same gradient (the duality of Garrido et al., arXiv 2206.02574,
theorem 3.3).

d x d: the diagonal is set to zero before squaring. Nothing cancels.

n x n: the diagonal has to be subtracted. The closer a'b is to a multiple of the identity, which
these losses aim for, the more digits cancel. So that multiple, sigma, is subtracted from the
matrices first. For any number sigma, with alpha = diag(a'a) and beta = diag(b'b),

    sum_{i != j} (a'b)_ij^2 = <aa' - sigma I, bb' - sigma I>_F + (d - n) sigma^2
                              + sum_i [(sigma - c_i)(sigma + c_i)
                                       + sigma (alpha_i - sigma + beta_i - sigma)]

With sigma the mean of alpha and beta, all terms are small or positive if a'b is near sigma I. What
still cancels are unequal diagonals: the error is a few roundings of sum_i (alpha_i - sigma)^2,
instead of a few roundings of sum_i alpha_i^2.
"""

from itertools import combinations, pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def covariance_energy(
    z: Float[Tensor, "views batch width"],
) -> tuple[Float[Tensor, "views width"], Float[Tensor, "views"]]:
    """The diagonal of x'x, with x a centered view, and the sum of squares of the rest (>= 0).

    Matrices are batch x batch if the batch is smaller than the width, else width x width.
    Differentiable once.
    """
    diagonal, energy = _CovarianceEnergy.apply(z)
    return diagonal, energy


def cross_energy(
    z: Float[Tensor, "views batch width"], *, epsilon: float | None = None
) -> tuple[Float[Tensor, "pairs width"], Float[Tensor, "pairs"]]:
    """The diagonal of a'b, for each pair of views, and the sum of squares of the rest (>= 0).

    Matrices are batch x batch if the batch is smaller than the width, else width x width. Pairs are
    (0, 1), (0, 2), ... (1, 2), ... Differentiable once.

    Args:
        z: the views.
        epsilon: added to the variance (divisor batch) under the root, when each coordinate is
            standardized first, as by BatchNorm. None does not standardize.
    """
    diagonal, energy = _CrossEnergy.apply(z, epsilon)
    return diagonal, energy


def gram_energy(z: Float[Tensor, "views batch width"]) -> Float[Tensor, "views"]:
    """The sum of squares of all entries of x'x, with x a view as it is: |x'x|_F^2 = |xx'|_F^2.

    Matrices are batch x batch if the batch is smaller than the width, else width x width.
    Differentiable once.
    """
    energy: Tensor = _GramEnergy.apply(z)
    return energy


def unit_columns(z: Float[Tensor, "*views batch width"]) -> Float[Tensor, "*views batch width"]:
    """Each coordinate scaled to length 1 over the batch; a coordinate of zeros stays 0.

    Differentiable once. `torch.nn.functional.normalize` has the same value and gradient, in three
    times as many operations, which are most of the cost in small batches.
    """
    columns: Tensor = _UnitColumns.apply(z)
    return columns


def gram(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """The inner products of all rows: the lower triangle, in stripes, and its mirror image."""
    count = len(rows)
    stripes = min(4, count // 64)
    if stripes < 2:
        return rows @ rows.T
    edges = [count * number // stripes for number in range(stripes + 1)]
    products = rows.new_empty(count, count)
    for start, end in pairwise(edges):
        torch.mm(rows[start:end], rows[:end].T, out=products[start:end, :end])
        products[:start, start:end] = products[start:end, :start].T
    return products


def smaller_gram(z: Float[Tensor, "*views n d"]) -> Float[Tensor, "*views m m"]:
    """Either zz' (n < d) or z'z: they have the same trace, norm and nonzero eigenvalues."""
    return z @ z.mT if z.shape[-2] < z.shape[-1] else z.mT @ z


def center(z: Float[Tensor, "*views batch width"]) -> Float[Tensor, "*views batch width"]:
    """Subtract the mean over the batch, without gradient."""
    centered = z - z.mean(dim=-2, keepdim=True)
    # The mean of large values is rounded, and its error may be large relative to the deviations.
    return centered.sub_(centered.mean(dim=-2, keepdim=True))


# Autograd would multiply twice in backward for each symmetric matrix, and keep copies.
# Views are processed one by one, in place, because memory costs more time than arithmetic here.
# Autocast does not affect products in place and into `out`, if backward runs under it.


class _CovarianceEnergy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> tuple[Tensor, Tensor]:
        _, batch, width = z.shape
        centered = [center(view) for view in z]
        scratch = torch.empty_like(centered[0])
        diagonal = torch.stack([torch.square(x, out=scratch).sum(dim=0) for x in centered])
        if batch < width:
            sigma = diagonal.mean(dim=1, keepdim=True)
            matrices = torch.stack([gram(x) for x in centered])
            matrices.diagonal(dim1=1, dim2=2).sub_(sigma)
            rest = (width - batch) * sigma[:, 0].square() - (diagonal - sigma).square().sum(dim=1)
        else:
            matrices = torch.stack([gram(x.T) for x in centered])
            matrices.diagonal(dim1=1, dim2=2).zero_()
            rest = torch.zeros_like(diagonal[:, 0])
        ctx.save_for_backward(diagonal, matrices, *centered)
        return diagonal, (matrices.square().sum(dim=(1, 2)) + rest).clamp_(min=0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, on: Tensor, off: Tensor) -> Tensor:
        diagonal, matrices, *centered = ctx.saved_tensors
        batch, width = centered[0].shape
        gradient: Tensor = matrices.new_empty(len(centered), batch, width)
        for view, x in enumerate(centered):
            weights = matrices[view] * (4 * off[view])
            if batch < width:
                unequal = diagonal[view] - diagonal[view].mean()
                torch.mul(x, 2 * on[view] - 4 * off[view] * unequal, out=gradient[view])
                gradient[view].addmm_(weights, x)
            else:
                weights.diagonal().copy_(2 * on[view])
                torch.mm(x, weights, out=gradient[view])
        # Its mean over the batch is already zero, because the columns of x are centered.
        return gradient


class _UnitColumns(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(z, dim=-2, keepdim=True).clamp_(min=1e-12)
        columns: Tensor = z / length
        ctx.save_for_backward(columns, length)
        return columns

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        columns, length = ctx.saved_tensors
        along = (gradients[0] * columns).sum(dim=-2, keepdim=True)
        gradient: Tensor = torch.addcmul(gradients[0], columns, along, value=-1).div_(length)
        return gradient


class _GramEnergy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        smaller = z.shape[1] < z.shape[2]
        matrices = torch.stack([gram(x) if smaller else gram(x.T) for x in z])
        ctx.save_for_backward(z, matrices)
        return matrices.square().sum(dim=(1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        z, matrices = ctx.saved_tensors
        weights = matrices * (4 * gradients[0])[:, None, None]
        gradient: Tensor = weights @ z if z.shape[1] < z.shape[2] else z @ weights
        return gradient


class _CrossEnergy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, epsilon: float | None) -> tuple[Tensor, Tensor]:
        views, batch, width = z.shape
        pairs = list(combinations(range(views), 2))
        scratch = torch.empty_like(z[0])
        rows, scale = z, None
        if epsilon is not None:
            rows = center(z)
            squares = torch.stack([torch.square(view, out=scratch).sum(dim=0) for view in rows])
            scale = torch.rsqrt(squares / batch + epsilon)[:, None]
            rows.mul_(scale)
        if batch < width:
            own = torch.stack([torch.square(view, out=scratch).sum(dim=0) for view in rows])
            sigma = own.mean()
            matrices = torch.stack([gram(view) for view in rows])
            matrices.diagonal(dim1=1, dim2=2).sub_(sigma)
            diagonal = torch.stack(
                [torch.mul(rows[a], rows[b], out=scratch).sum(dim=0) for a, b in pairs]
            )
            shifted = torch.stack([(matrices[a] * matrices[b]).sum() for a, b in pairs])
            unequal = torch.stack([own[a] - sigma + (own[b] - sigma) for a, b in pairs])
            rest = (sigma - diagonal) * (sigma + diagonal) + sigma * unequal
            energy = (shifted + (width - batch) * sigma.square() + rest.sum(dim=1)).clamp_(min=0)
            extra = sigma
        else:
            matrices = z.new_empty(len(pairs), width, width)
            for product, (a, b) in zip(matrices, pairs, strict=True):
                torch.mm(rows[a].T, rows[b], out=product)
            diagonal = matrices.diagonal(dim1=1, dim2=2).clone()
            matrices.diagonal(dim1=1, dim2=2).zero_()
            squares = matrices.square()
            extra = torch.stack([squares.sum(dim=2), squares.sum(dim=1)])
            energy = extra[0].sum(dim=1)
        ctx.save_for_backward(rows, scale, diagonal, matrices, extra)
        return diagonal, energy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, on: Tensor, off: Tensor) -> tuple[Tensor, None]:
        rows, scale, diagonal, matrices, extra = ctx.saved_tensors
        views, batch, width = rows.shape
        if batch < width:
            gradient = _CrossEnergy.by_images(rows, diagonal, matrices, extra, on, 2 * off)
        else:
            gradient = _CrossEnergy.by_width(rows, matrices, on, 2 * off)
        if scale is None:
            return gradient, None
        if batch < width:
            scratch = torch.empty_like(rows[0])
            products = [
                torch.mul(pulled, row, out=scratch).sum(dim=0)
                for pulled, row in zip(gradient, rows, strict=True)
            ]
            along = torch.stack(products)
        else:
            along = _CrossEnergy.sums_by_width(views, diagonal, extra, on, 2 * off)
        # BatchNorm's backward, without subtracting the mean over the batch: it is already zero,
        # because the rows are centered.
        gradient.addcmul_(rows, along[:, None], value=-1 / batch).mul_(scale)
        return gradient, None

    @staticmethod
    def by_images(
        rows: Tensor,
        diagonal: Tensor,
        matrices: Tensor,
        sigma: Tensor,
        on: Tensor,
        off: Tensor,
    ) -> Tensor:
        across = on - off[:, None] * diagonal
        gradient = torch.empty_like(rows)
        pairs = list(combinations(range(len(rows)), 2))
        for one, pulled in enumerate(gradient):
            met = [(sum(pair) - one, at) for at, pair in enumerate(pairs) if one in pair]
            torch.mul(rows[one], sigma * sum(off[at] for _, at in met), out=pulled)
            for other, at in met:
                pulled.addcmul_(rows[other], across[at])
            pulled.addmm_(sum(matrices[other] * off[at] for other, at in met), rows[one])
        return gradient

    @staticmethod
    def by_width(rows: Tensor, matrices: Tensor, on: Tensor, off: Tensor) -> Tensor:
        gradient = torch.empty_like(rows)
        for at, (a, b) in enumerate(combinations(range(len(rows)), 2)):
            weights = matrices[at] * off[at]
            weights.diagonal().copy_(on[at])
            gradient[a].addmm_(rows[b], weights.T, beta=0 if at == 0 else 1)
            gradient[b].addmm_(rows[a], weights, beta=0 if a == 0 else 1)
        return gradient

    @staticmethod
    def sums_by_width(
        views: int, diagonal: Tensor, squares: Tensor, on: Tensor, off: Tensor
    ) -> Tensor:
        """Sums over the batch of gradient * rows, without a pass over either."""
        along = diagonal.new_zeros(views, diagonal.shape[1])
        for at, pair in enumerate(combinations(range(views), 2)):
            for one, sums in zip(pair, squares, strict=True):
                along[one].addcmul_(sums[at], off[at]).addcmul_(on[at], diagonal[at])
        return along
