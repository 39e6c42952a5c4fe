"""The label-free meters of a run: of the last images' embeddings, streamed, in bounded memory."""

from collections.abc import Callable
from typing import final

import torch

from noneg.diagnostics import Window, covariance_eigenvalues, measure, quick_measure
from noneg.methods.base import Embeddings

IMAGES = 512
"""How many of the last images are measured. Their embeddings take 8 * IMAGES * (D + K) bytes."""

IMAGES_BETWEEN_SPECTRA = 5120
"""All meters cost about a tenth of a second, which images in this number take many times over."""

LARGEST_SPECTRUM = 256


@final
class Metering:
    """Sees every batch's embeddings, those of all processes, and measures when asked to."""

    def __init__(self, batch_size: int) -> None:
        """Keep the last `IMAGES` images, whole batches of them: one batch at least."""
        most = max(batch_size, IMAGES // batch_size * batch_size)
        self.windows = {"h": Window(min(most, 2 * IMAGES)), "z": Window(min(most, 2 * IMAGES))}

    def see(self, e: Embeddings) -> None:
        """Keep copies of one step's representations and projections."""
        for name, window in self.windows.items():
            window.add(getattr(e, name))

    def quick(self) -> dict[str, float]:
        """The meters that cost next to nothing, as `std_h`, `std_z` ..."""
        return self._all(quick_measure)

    def full(self) -> dict[str, float]:
        """All meters, as `std_h`, `std_z` ..."""
        return self._all(measure)

    def spectra(self) -> dict[str, list[float]]:
        """Eigenvalues of the covariance of "h" and "z", descending, the largest of them."""
        return {
            name: covariance_eigenvalues(window.views()[0], resolution=window.resolution)[
                :LARGEST_SPECTRUM
            ].tolist()
            for name, window in self.windows.items()
        }

    def _all(self, measure_one: Callable[..., dict[str, float]]) -> dict[str, float]:
        values: dict[str, float] = {}
        for name, window in self.windows.items():
            meters = measure_one(window.views(), resolution=window.resolution)
            values |= {f"{meter}_{name}": value for meter, value in meters.items()}
        return values

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What a resumed run's meters go on from."""
        return {name: window.views() for name, window in self.windows.items() if len(window)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """See `state_dict`."""
        for name, views in state.items():
            self.windows[name].add(views)
