"""The encoder as a scikit-learn transformer, for pipelines and grid searches over what follows it.

make_pipeline(ImageEncoder("runs/first"), LogisticRegression()).fit(paths, labels)
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from torch import Tensor
from torch.utils.data import Dataset

from noneg.encoder import Encoder, EncoderInfo, load
from noneg.errors import NonegError
from noneg.images.decode import decode


class ImageEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Images in, features out. There is nothing to fit.

    Args:
        run: what `noneg.load` takes: the directory of a run or an encoder, or "timm:NAME". It is
            opened when it is first needed, and again in other processes.
        batch_size: images per batch.
        device: "auto" is a GPU if there is one.
    """

    def __init__(self, run: str = "", *, batch_size: int = 256, device: str = "auto") -> None:
        """Only store the parameters, as scikit-learn wants it."""
        self.run = run
        self.batch_size = batch_size
        self.device = device

    def fit(self, X: Any, y: Any = None) -> "ImageEncoder":
        """Do nothing but open the encoder.

        Raises:
            NonegError: there is no encoder.
        """
        self._load()
        return self

    def transform(self, X: Any) -> Float32[np.ndarray, "images features"]:
        """Embed images.

        Args:
            X: a sequence, a column or a table of one column, of paths, PIL images or arrays
                [H, W, C]; or an array uint8 [N, H, W] or [N, H, W, C].

        Returns:
            float32 [N, D].

        Raises:
            NonegError: there is no encoder, or an image cannot be read.
        """
        encoder = self._load()
        is_array = isinstance(X, np.ndarray | Tensor) and X.dtype != object and X.ndim >= 3
        data = X if is_array else _Pictures(_as_list(X), encoder.info)
        return encoder.embed(data, batch_size=self.batch_size, device=self.device)

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """`noneg0`, `noneg1` ..."""
        count = self._load().info.features
        return np.array([f"noneg{number}" for number in range(count)], dtype=object)

    def _load(self) -> Encoder:
        if not self.run:
            raise NonegError("ImageEncoder needs a run, an encoder, or timm:NAME: give run=")
        kept: tuple[str, Encoder] | None = getattr(self, "_kept", None)
        if kept is None or kept[0] != self.run:
            kept = (self.run, load(self.run))
            self._kept = kept
        return kept[1]

    def __getstate__(self) -> dict[str, Any]:
        """Without the network, so that pickles are small and never hold code."""
        state: dict[str, Any] = dict(super().__getstate__())
        state.pop("_kept", None)
        return state

    def __sklearn_is_fitted__(self) -> bool:
        """Always: nothing is learned."""
        return True

    def __sklearn_tags__(self) -> Tags:
        """Images are no table of numbers."""
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.requires_fit = False
        return tags


class _Pictures(Dataset[Any]):
    """Paths are decoded when their image is needed, as those of a folder are."""

    def __init__(self, items: Sequence[Any], info: EncoderInfo) -> None:
        self._items, self._info = items, info

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        item = self._items[index]
        if isinstance(item, str | os.PathLike):
            with open(item, "rb") as file:
                pixels = decode(file, self._info.channels, self._info.stored_size)
            return pixels.transpose(1, 2, 0)
        return item


def _as_list(X: Any) -> list[Any]:
    # A table of one column, of pandas or polars, or an array of objects [N, 1].
    if getattr(X, "ndim", 1) == 2 or (hasattr(X, "columns") and hasattr(X, "shape")):
        if X.shape[1] != 1:
            raise NonegError(
                f"ImageEncoder takes one column of images, and this table has {X.shape[1]}: choose "
                "one"
            )
        X = X[:, 0] if isinstance(X, np.ndarray) else X[X.columns[0]]
    if isinstance(X, str | os.PathLike):
        raise NonegError("ImageEncoder takes a sequence of images: give [path], or a list of paths")
    return list(X)
