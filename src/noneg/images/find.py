"""From what the user gave to a source of images."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from noneg.errors import NonegError, printable
from noneg.images.array import as_labels, file_source, numpy_source, tensor_source
from noneg.images.dataset import DatasetSource
from noneg.images.folder import FolderSource
from noneg.images.named import DATA_SETS, is_data_set, named_source
from noneg.images.source import ImageSource
from noneg.images.threads import Steps, patiently

Data = str | os.PathLike[str] | np.ndarray | torch.Tensor | Dataset[Any]


def find_source(
    data: Data | ImageSource,
    *,
    labels: np.ndarray | torch.Tensor | Sequence[int] | None = None,
    split: Literal["train", "test"] = "train",
    seed: int = 0,
) -> ImageSource:
    """Find the images that `data` means.

    Args:
        data: a folder of images, with its subfolders; a `.npy` file (labels in `NAME.labels.npy`
            next to it) or `.npz` file (`images`, `labels`); an array [N, H, W] or [N, H, W, C] or
            a tensor [N, H, W] or [N, C, H, W], uint8 or uint16; a map-style `Dataset` of images or
            (image, label); or a name: "shapes", or a torchvision data set in lower case. An
            existing path goes before a name. A source that was found already is returned.
        labels: whole numbers from 0, one per image, only used for evaluation; they replace the
            source's own labels.
        split: which split of a named data set; everything else has only one split.
        seed: from 0; the seed that the shapes are drawn with.

    Raises:
        NonegError: there are no images, or images of this kind cannot be read.
    """
    source = _find(data, split, seed)
    if labels is not None:
        source.labels = as_labels(labels, len(source), source.description)
        source.classes = None
    return source


def _find(data: Data | ImageSource, split: Literal["train", "test"], seed: int) -> ImageSource:
    if isinstance(data, ImageSource):
        return data
    if isinstance(data, np.ndarray):
        return numpy_source(data)
    if isinstance(data, torch.Tensor):
        return tensor_source(data)
    if isinstance(data, str | os.PathLike):
        return _find_path_or_name(os.fspath(data), split, seed)
    if isinstance(data, Dataset):
        return DatasetSource(data)
    raise NonegError(
        f"A {type(data).__name__} cannot be read as images: give a folder, a .npy or .npz file, "
        "an array, a tensor, a map-style torch Dataset, or a name."
    )


def _find_path_or_name(text: str, split: Literal["train", "test"], seed: int) -> ImageSource:
    path = Path(text).expanduser()
    kind = patiently(partial(_kind_of, path)) if text else None
    if kind == "folder":
        return FolderSource(path)
    if kind == "file":
        return file_source(path)
    if is_data_set(text):
        return named_source(text, split, seed)
    raise NonegError(
        f'"{printable(text)}" was not found: there is no folder or file '
        f"{printable(str(path.absolute()))}, and the named data sets are {', '.join(DATA_SETS)}."
    )


def _kind_of(path: Path, steps: Steps) -> Literal["folder", "file"] | None:
    steps.place = str(path)
    if path.is_dir():
        return "folder"
    return "file" if path.exists() else None
