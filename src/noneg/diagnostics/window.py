"""The embeddings of the last images while training, in bounded memory."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from noneg.diagnostics.precision import resolution_of


@final
class Window:
    """A ring of the embeddings of the last so many images, all views of each.

    A batch is often too small for a spectrum. The weights move while the ring fills, so that the
    oldest rows are from a slightly older encoder. Memory: 4 V D bytes for each image.

    Attributes:
        resolution: the coarsest relative precision of what came in, to give to the meters: numbers
            that were rounded to bfloat16 look finer in float32 than they are.
    """

    def __init__(self, most: int) -> None:
        """Hold no more than `most` images; at least 1."""
        self.most = most
        self.resolution = torch.finfo(torch.float32).eps
        self._ring: Tensor | None = None
        self._end = 0
        self._held = 0

    def __len__(self) -> int:
        """How many images are held."""
        return self._held

    @torch.no_grad()
    def add(self, views: Float[Tensor, "views images width"]) -> None:
        """Copy the embeddings of a batch; the oldest images give way.

        Another number of views, width or device than before: the window starts anew.
        """
        count, _, width = views.shape
        ring = self._ring
        if (
            ring is None
            or (ring.shape[0], ring.shape[2]) != (count, width)
            or ring.device != views.device
        ):
            ring = torch.empty(count, self.most, width, dtype=torch.float32, device=views.device)
            self._ring, self._end, self._held = ring, 0, 0
            self.resolution = torch.finfo(torch.float32).eps
        self.resolution = max(self.resolution, resolution_of(views))
        views = views[:, -self.most :]
        images = views.shape[1]
        first = min(images, self.most - self._end)
        ring[:, self._end : self._end + first].copy_(views[:, :first])
        ring[:, : images - first].copy_(views[:, first:])
        self._end = (self._end + images) % self.most
        self._held = min(self._held + images, self.most)

    def views(self) -> Float[Tensor, "views images width"]:
        """A copy of what is held, the oldest image first: float32 [V, n, D].

        Raises:
            RuntimeError: nothing was added yet.
        """
        if self._ring is None:
            raise RuntimeError("The window is empty: add embeddings first.")
        if self._held < self.most:
            return self._ring[:, : self._held].clone()
        return self._ring.roll(-self._end, dims=1)
