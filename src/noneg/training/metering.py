"""The label-free meters of a run, measured on the embeddings of the last images."""

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from noneg.diagnostics import covariance_eigenvalues, measure, quick_measure
from noneg.diagnostics.resolution import resolution_of
from noneg.methods.base import Embeddings

IMAGES, QUICK_IMAGES = 512, 256
"""How many of the last images are measured: by all meters, and by the meters of every row.

Their embeddings take 4 * V * IMAGES * (D + K) bytes.
"""

IMAGES_BETWEEN_SPECTRA = 20_480
"""All meters take about a third of a second on a CPU; this many images take 100 times as long."""

LARGEST_SPECTRUM = 256


@final
class Window:
    """A ring buffer of the embeddings of the last images, with all views of each.

    One batch is often too small for a spectrum. The weights change while the buffer fills, so its
    oldest rows are from a slightly older encoder. Memory: 4 V D bytes per image.

    Attributes:
        resolution: the coarsest relative precision of the embeddings so far, for the meters:
            numbers that were rounded to bfloat16 look more precise in float32 than they are.
    """

    def __init__(self, most: int) -> None:
        """Hold at most `most` images, 1 or more."""
        self.most = most
        self.resolution = torch.finfo(torch.float32).eps
        self._ring: Tensor | None = None
        self._end = 0
        self._held = 0

    def __len__(self) -> int:
        """The number of images held."""
        return self._held

    @torch.no_grad()
    def add(self, views: Float[Tensor, "views images width"]) -> None:
        """Copy the embeddings of a batch, in place of the oldest ones.

        If the number of views, the width or the device changes, the window starts empty.
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
        """A copy of the embeddings, the oldest image first: float32 [V, n, D].

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
    """Keeps the last embeddings of all processes, and measures them when asked."""

    def __init__(self) -> None:
        """Keep the last `IMAGES` images."""
        self.windows = {"h": Window(IMAGES), "z": Window(IMAGES)}
        self.resolution = 0.0

    def forget(self) -> None:
        """Drop all embeddings, because the weights were replaced."""
        self.windows = {"h": Window(IMAGES), "z": Window(IMAGES)}

    def set_precision(self, precision: str) -> None:
        """Set the precision of the network, by Lightning's name.

        Embeddings are converted to float32 before the loss; without this, the meters would take
        the rounding errors of bfloat16 for directions.
        """
        halves = {"bf16": torch.bfloat16, "16-": torch.float16}
        found = [each for name, each in halves.items() if precision.startswith(name)]
        self.resolution = torch.finfo(found[0]).eps if found else 0.0

    def see(self, e: Embeddings) -> None:
        """Keep copies of one step's representations and projections."""
        for name, window in self.windows.items():
            window.add(getattr(e, name))

    def quick(self) -> dict[str, float]:
        """The cheap meters, as `std_h`, `std_z` ..."""
        return self._all(quick_measure, QUICK_IMAGES)

    def full(self) -> dict[str, float]:
        """All meters; the cheap ones are measured as in `quick`, so their curves have no jumps."""
        return self._all(measure, IMAGES) | self.quick()

    def spectra(self) -> dict[str, list[float]]:
        """The largest eigenvalues of the covariance of "h" and "z", in descending order."""
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
        """The embeddings that a resumed run continues with."""
        return {name: window.views() for name, window in self.windows.items() if len(window)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """See `state_dict`."""
        for name, views in state.items():
            self.windows[name].add(views)
