"""Muon: momentum with orthogonalized updates, for convolutions; AdamW for everything else.

Jordan et al. 2024, kellerjordan.github.io/posts/muon. The update of a weight matrix is replaced by
the nearest matrix whose singular values are all about 1, so that directions with small gradients
are learned as fast as the others. Embedding objectives learn their directions one after the other
(Simon et al. 2023, arXiv 2303.15438), which is what this shortens.

torch.optim.Muon takes no convolutions, and it and timm's compute in bfloat16 always: on a CPU
without bfloat16 instructions that takes thirty times as long.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import AdamW

from noneg.training.distributed import sharded_like, whole_tensor

STEPS = 3
"""Iterations; singular values end in [0.2, 1.3] if they began above 0.05 of the largest."""

# Jordan's polynomial a x + b x^3 + c x^5: steep at 0, and near 1 on most of (0, 1].
_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalize(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Roughly U V^T of the singular value decomposition U S V^T, by products only.

    Args:
        matrix: any real matrix; float32.

    Returns:
        A matrix with the same singular vectors, and singular values around 1; 0 for 0.
    """
    transposed = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if transposed else matrix
    x = x / x.norm().clamp_min(1e-7)
    # Each iteration multiplies x by a polynomial of its Gram matrix. Updating only the Gram matrix
    # leaves two products with all columns, instead of two in each iteration.
    gram = x @ x.T
    identity = torch.eye(len(x), dtype=x.dtype, device=x.device)
    product = polynomial = _A * identity + _B * gram + _C * gram @ gram
    for _ in range(STEPS - 1):
        gram = polynomial @ gram @ polynomial
        polynomial = _A * identity + _B * gram + _C * gram @ gram
        product = polynomial @ product
    x = product @ x
    result: Tensor = x.T if transposed else x
    return result


class Muon(AdamW):
    """AdamW, but with Muon's step in groups that have `"orthogonal": True`.

    A step of Muon is the rate times 0.2 sqrt(max(rows, columns)) times the orthogonal matrix, so
    that it is as large as a step of AdamW, and both take the same rate (Liu et al. 2025, arXiv
    2502.16982, section 2.2). A convolution's weight [out, in, k, k] is a matrix [out, in k k].

    Args:
        groups: as for AdamW; orthogonal groups have weights of two or more dimensions.
        momentum: of orthogonal groups, with Nesterov's step.
    """

    def __init__(
        self, groups: list[dict[str, Any]], lr: float, *, momentum: float = 0.9, fused: bool = False
    ) -> None:
        for group in groups:
            group.setdefault("orthogonal", False)
            group["momentum"] = momentum
        super().__init__(groups, lr=lr, fused=fused)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of all groups."""
        every = self.param_groups
        self.param_groups = [group for group in every if not group["orthogonal"]]
        try:
            loss = cast(float | None, super().step(closure))
        finally:
            self.param_groups = every
        for group in every:
            if group["orthogonal"]:
                for weight in group["params"]:
                    if weight.grad is not None:
                        self._step(weight, group)
        return loss

    def _step(self, weight: Tensor, group: dict[str, Any]) -> None:
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            # AdamW, which reads the state of all groups from a checkpoint, expects "step".
            state["step"] = torch.tensor(0.0)
            state["momentum"] = torch.zeros_like(weight)
        state["step"] += 1
        momentum: Tensor = state["momentum"]
        momentum.mul_(group["momentum"]).add_(weight.grad)
        update = weight.grad + group["momentum"] * momentum
        # A process that has only some rows of a sharded weight needs all of them.
        whole = whole_tensor(update)
        matrix = whole.reshape(len(whole), -1)
        size = 0.2 * max(matrix.shape) ** 0.5
        change = group["lr"] * size * orthogonalize(matrix).reshape(whole.shape)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.sub_(sharded_like(update, change))
