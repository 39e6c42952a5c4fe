"""The gradient of one training step: views -> embeddings -> whole batch -> loss -> gradient."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from noneg.methods.base import Embeddings, Loss, Method
from noneg.networks.norms import statistics_move_once_in, statistics_stay
from noneg.randomness import hash_key
from noneg.training.distributed import gather, rank

Views = tuple[Float[Tensor, "batch channels _ _"], ...]
Embed = Callable[[Views, int, Tensor], Embeddings]

# Separate the random numbers of dropout, of images and of the objective from all others.
_NETWORK = 0xD0
_IMAGES = 0x1A
_OBJECTIVE = 0x0B


def compute_gradient(
    method: Method,
    views: Views,
    index: Int[Tensor, "batch"],
    backward: Callable[[Tensor], None] = Tensor.backward,
    *,
    embed: Embed | None = None,
    seed: int = 0,
) -> tuple[Loss, Embeddings]:
    """Compute the gradient of the whole batch's loss, and leave it in the parameters.

    Args:
        method: the method that is trained.
        views: this process's views, one tensor per view.
        index: int64 [batch], the images' numbers in the data set.
        backward: runs the backward pass; data-parallel training passes its own.
        embed: `method.embed_in_step`, or what data-parallel training wraps around it.
        seed: seed of the step for torch's global generator. Dropout samples different numbers on
            each process, the objective the same numbers on all.

    Returns:
        The loss with its terms, and the embeddings of all processes' images.
    """
    local = replace(_embed(embed or method.embed_in_step, views, index, seed, 0), index=index)
    loss, whole = whole_batch_objective(method, local, seed)
    backward(loss.value)
    return loss, whole


def compute_gradient_in_chunks(
    method: Method,
    draw: Callable[[slice], Views],
    index: Int[Tensor, "batch"],
    chunk_size: int,
    backward: Callable[[Tensor], None] = Tensor.backward,
    *,
    embed: Embed | None = None,
    seed: int = 0,
    without_averaging: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> tuple[Loss, Embeddings]:
    """The same gradient in the memory of one chunk: GradCache (Gao et al., arXiv 2101.06983).

    Embed chunk by chunk without a graph, compute the loss's gradient with respect to the
    embeddings, then embed each chunk again and backpropagate that gradient.

    The result equals `compute_gradient` except for BatchNorm, which normalizes each chunk by the
    chunk's statistics; its running statistics move as far as by one batch, towards about the mean
    over the chunks.
    Dropout samples the same numbers in both passes, but other numbers than without chunks.
    Parameters that `objective` itself uses get no gradient.

    Args:
        method: the method that is trained.
        draw: returns the views of a slice of this process's images, the same views at each call.
            It is called twice per chunk, so that only the views of one chunk take memory.
        index: int64 [batch], the images' numbers in the data set.
        chunk_size: largest number of images per chunk; the chunks are as even as possible.
        backward: runs the backward pass; data-parallel training passes its own.
        embed: as for `compute_gradient`.
        seed: as for `compute_gradient`.
        without_averaging: a context in which `backward` does not average gradients over processes.
            The last chunk is embedded outside of it, and its backward pass averages all gradients.

    Returns:
        The loss with its terms, and the embeddings of all processes' images.
    """
    embed = embed or method.embed_in_step
    parts = chunks_of(len(index), chunk_size)
    with torch.no_grad(), statistics_move_once_in(method, len(parts)):
        embedded = [_full_precision(_embed(embed, draw(p), index[p], seed, p.start)) for p in parts]
    # Up to torch 2.9, weights cast without a graph would be reused in the pass with a graph.
    torch.clear_autocast_cache()
    names = _names(embedded[0])
    local = {
        name: torch.cat([getattr(e, name) for e in embedded], dim=1).requires_grad_()
        for name in names
    }
    del embedded
    loss, whole = whole_batch_objective(method, Embeddings(**local, index=index), seed)
    gradients = torch.autograd.grad(loss.value, list(local.values()), allow_unused=True)
    with statistics_stay(method):
        for part in parts:
            with nullcontext() if part is parts[-1] else without_averaging():
                e = _full_precision(_embed(embed, draw(part), index[part], seed, part.start))
                pushed = [
                    (getattr(e, name) * gradient[:, part]).sum()
                    for name, gradient in zip(names, gradients, strict=True)
                    if gradient is not None and getattr(e, name).requires_grad
                ]
                backward(torch.stack(pushed).sum())
    return loss, whole


def chunks_of(count: int, chunk_size: int) -> list[slice]:
    """0 ... count - 1 in as few slices of at most `chunk_size` as possible, evenly.

    No slice is a single image, which has no batch statistics: 3 images are one slice, even if
    `chunk_size` is 2.
    """
    number = max(1, min(-(-count // chunk_size), count // 2))
    bounds = [position * count // number for position in range(number + 1)]
    return [slice(*each) for each in pairwise(bounds)]


def whole_batch_objective(method: Method, local: Embeddings, seed: int) -> tuple[Loss, Embeddings]:
    """The loss on the embeddings of all processes, in float32 whatever the network computes in."""
    e = gather(_full_precision(local))
    torch.manual_seed(hash_key(seed, _OBJECTIVE))
    with torch.autocast(e.z.device.type, enabled=False):
        return method.objective(e), e


def _embed(embed: Embed, views: Views, index: Tensor, seed: int, start: int) -> Embeddings:
    # So dropout samples the same numbers in a chunk's second pass and in a resumed run.
    torch.manual_seed(hash_key(seed, rank(), start, _NETWORK))
    return embed(views, hash_key(seed, _IMAGES), index)


def _names(e: Embeddings) -> list[str]:
    return [f.name for f in fields(e) if f.name != "index" and getattr(e, f.name) is not None]


def _full_precision(e: Embeddings) -> Embeddings:
    def widen(value: Tensor) -> Tensor:
        return value if value.dtype == torch.float64 else value.to(torch.float32)

    return replace(e, **{name: widen(getattr(e, name)) for name in _names(e)})
