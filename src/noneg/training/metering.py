"""The label-free meters of a run: of the last images' embeddings, streamed, in bounded memory."""

from collections.abc import Callable
from typing import final

import torch

from noneg.diagnostics import Window, covariance_eigenvalues, measure, quick_measure
from noneg.methods.base import Embeddings

IMAGES, QUICK_IMAGES = 512, 256
"""How many of the last images are measured by all meters, and by those of every row.

Their embeddings take 4 * V * IMAGES * (D + K) bytes.
"""

IMAGES_BETWEEN_SPECTRA = 20_480
"""All meters cost about a third of a second on a CPU, and so many images a hundred times that."""

LARGEST_SPECTRUM = 256


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
