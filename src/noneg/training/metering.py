"""The label-free meters of a run: of the last images' embeddings, streamed, in bounded memory."""

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from noneg.diagnostics import covariance_eigenvalues, measure, quick_measure
from noneg.diagnostics.resolution import resolution_of
from noneg.methods.base import Embeddings

IMAGES, QUICK_IMAGES = 512, 256
"""How many of the last images are measured by all meters, and by those of every row.

Their embeddings take 4 * V * IMAGES * (D + K) bytes.
"""

IMAGES_BETWEEN_SPECTRA = 20_480
"""All meters cost about a third of a second on a CPU, and so many images a hundred times that."""

LARGEST_SPECTRUM = 256


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


@final
class Metering:
    """Sees every batch's embeddings, those of all processes, and measures when asked to."""

    def __init__(self) -> None:
        """Keep the last `IMAGES` images."""
        self.windows = {"h": Window(IMAGES), "z": Window(IMAGES)}
        self.resolution = 0.0

    def forget(self) -> None:
        """Begin anew: the weights are others."""
        self.windows = {"h": Window(IMAGES), "z": Window(IMAGES)}

    def set_precision(self, precision: str) -> None:
        """Lightning's name of what the network computes in, coarser than what is seen of it.

        Embeddings are widened before the loss, and bfloat16's rounding would pass for directions.
        """
        halves = {"bf16": torch.bfloat16, "16-": torch.float16}
        found = [each for name, each in halves.items() if precision.startswith(name)]
        self.resolution = torch.finfo(found[0]).eps if found else 0.0

    def see(self, e: Embeddings) -> None:
        """Keep copies of one step's representations and projections."""
        for name, window in self.windows.items():
            window.add(getattr(e, name))

    def quick(self) -> dict[str, float]:
        """The meters that cost next to nothing, as `std_h`, `std_z` ..."""
        return self._all(quick_measure, QUICK_IMAGES)

    def full(self) -> dict[str, float]:
        """All meters; those of `quick` are the same numbers, so that curves have no jumps."""
        return self._all(measure, IMAGES) | self.quick()

    def spectra(self) -> dict[str, list[float]]:
        """Eigenvalues of the covariance of "h" and "z", descending, the largest of them."""
        return {
            name: covariance_eigenvalues(
                window.views()[0], resolution=self._resolution(window)
            ).tolist()[:LARGEST_SPECTRUM]
            for name, window in self.windows.items()
        }

    def _all(self, measure_one: Callable[..., dict[str, float]], most: int) -> dict[str, float]:
        values: dict[str, float] = {}
        for name, window in self.windows.items():
            meters = measure_one(window.views()[:, -most:], resolution=self._resolution(window))
            values |= {f"{meter}_{name}": value for meter, value in meters.items()}
        return values

    def _resolution(self, window: Window) -> float:
        return max(self.resolution, window.resolution)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What a resumed run's meters go on from."""
        return {name: window.views() for name, window in self.windows.items() if len(window)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """See `state_dict`."""
        for name, views in state.items():
            self.windows[name].add(views)
