"""One training step's gradient: views -> embeddings -> whole batch -> loss -> gradient."""

from collections.abc import Callable
from dataclasses import fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from noneg.methods.base import Embeddings, Method, Step
from noneg.training.distributed import gather

Views = tuple[Float[Tensor, "batch channels _ _"], ...]


def compute_gradient(
    method: Method,
    views: Views,
    index: Int[Tensor, "batch"],
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> tuple[Step, Embeddings]:
    """Leave the gradient of the whole batch's loss in the parameters.

    Args:
        method: what is trained.
        views: this process's views, one tensor a view.
        index: int64 [batch], which images these are.
        backward: what runs the backward pass; a trainer gives its own.

    Returns:
        The loss with its terms, and the embeddings of this process's images.
    """
    local = replace(method.embed(views), index=index)
    step = whole_batch_objective(method, local)
    backward(step.loss)
    return step, local


def compute_gradient_in_chunks(
    method: Method,
    views: Views,
    index: Int[Tensor, "batch"],
    chunk_size: int,
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> tuple[Step, Embeddings]:
    """The same gradient in the memory of one chunk (Gao et al., arXiv 2101.06983).

    Embed chunk by chunk without a graph, take the loss's gradient with respect to the embeddings,
    embed each chunk again and push that gradient through. Equal to `compute_gradient` where a
    chunk embeds the same both times: not with BatchNorm, which sees its chunk alone, nor with
    dropout.
    """
    chunks = [
        tuple(view[start : start + chunk_size] for view in views)
        for start in range(0, len(index), chunk_size)
    ]
    with torch.no_grad():
        embedded = [method.embed(chunk) for chunk in chunks]
    whole = {
        name: torch.cat([getattr(e, name) for e in embedded], dim=1).requires_grad_()
        for name in _names(embedded[0])
    }
    leaves = Embeddings(**whole, index=index)
    step = whole_batch_objective(method, leaves)
    names = list(whole)
    gradients = torch.autograd.grad(step.loss, [whole[name] for name in names], allow_unused=True)
    start = 0
    for chunk in chunks:
        e = method.embed(chunk)
        size = e.h.shape[1]
        pushed = [
            (getattr(e, name) * gradient[:, start : start + size]).sum()
            for name, gradient in zip(names, gradients, strict=True)
            if gradient is not None and getattr(e, name).requires_grad
        ]
        backward(torch.stack(pushed).sum())
        start += size
    return step, leaves


def whole_batch_objective(method: Method, local: Embeddings) -> Step:
    """The loss on the embeddings of all ranks, in float32 whatever the network computed in."""
    e = gather(_full_precision(local))
    with torch.autocast(e.z.device.type, enabled=False):
        return method.objective(e)


def _names(e: Embeddings) -> list[str]:
    return [f.name for f in fields(e) if f.name != "index" and getattr(e, f.name) is not None]


def _full_precision(e: Embeddings) -> Embeddings:
    def widen(value: Tensor) -> Tensor:
        return value if value.dtype == torch.float64 else value.to(torch.float32)

    return replace(e, **{name: widen(getattr(e, name)) for name in _names(e)})
