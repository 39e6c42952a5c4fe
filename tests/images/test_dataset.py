"""Any map-style torch `Dataset`, and data sets by name."""

import threading
import time
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from noneg.errors import NonegError
from noneg.images import find_source, load_images

NOISE = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)


class Items(Dataset):
    """Returns the given items."""

    def __init__(self, items, **attributes) -> None:
        self.items = items
        self.read_indices: list[int] = []
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int):
        self.read_indices.append(index)
        item = self.items[index]
        if isinstance(item, Exception):
            raise item
        return item


def load(dataset, channels: int = 3, size: int = 8):
    return load_images(find_source(dataset), channels=channels, size=size)


@pytest.mark.parametrize(
    "convert",
    [
        Image.fromarray,
        lambda image: image,
        lambda image: image.astype(np.uint16) * 257,
        lambda image: torch.from_numpy(image).permute(2, 0, 1),
        lambda image: torch.from_numpy(image).permute(2, 0, 1) / 255,
        lambda image: torch.from_numpy(image).permute(2, 0, 1).double() / 255,
    ],
)
@pytest.mark.parametrize(
    "wrap", [lambda image: image, lambda image: (image, 1), lambda image: [image]]
)
def test_every_kind_of_item(convert, wrap) -> None:
    source = find_source(Items([wrap(convert(image)) for image in NOISE]))
    assert source.natural_channels() == 3
    assert source.natural_size() == 8
    images = load_images(source, channels=3, size=8)
    assert np.array_equal(images.pixels, NOISE.transpose(0, 3, 1, 2))
    assert "Items" in images.description


def test_gray_items() -> None:
    for item in (NOISE[0, :, :, 0], Image.fromarray(NOISE[0, :, :, 0])):
        source = find_source(Items([item]))
        assert source.natural_channels() == 1
        assert np.array_equal(source.read(0, 3, 8), np.stack([NOISE[0, :, :, 0]] * 3))


@pytest.mark.parametrize(
    "values", [[2, 0, 1], (2, 0, 1), np.array([2, 0, 1]), torch.tensor([2, 0, 1])]
)
@pytest.mark.parametrize("attribute", ["targets", "labels"])
def test_labels_from_an_attribute_without_reading_an_item(values, attribute: str) -> None:
    dataset = Items(list(NOISE[:3]), classes=["a", "b", "c"], **{attribute: values})
    source = find_source(dataset)
    assert source.labels is not None
    assert source.labels.tolist() == [2, 0, 1]
    assert source.classes == ("a", "b", "c")
    assert dataset.read_indices == []


@pytest.mark.parametrize("label", [int, np.int64, torch.tensor])
def test_labels_from_the_items(label) -> None:
    source = find_source(Subset(Items([(image, label(7)) for image in NOISE]), [4, 2, 1]))
    assert source.labels is None
    images = load_images(source, channels=3, size=8)
    assert images.labels is not None
    assert images.labels.dtype == np.int64
    assert images.labels.tolist() == [7, 7, 7]
    assert np.array_equal(images.pixels, NOISE[[4, 2, 1]].transpose(0, 3, 1, 2))


def test_with_a_target_transform_the_items_labels_go_before_the_attribute() -> None:
    dataset = Items([(NOISE[0], 1)], targets=[5], target_transform=lambda label: label - 4)
    images = load(dataset)
    assert images.labels is not None
    assert images.labels.tolist() == [1]


def test_given_labels_go_before_the_items() -> None:
    source = find_source(Items([(image, 7) for image in NOISE]), labels=range(6))
    images = load_images(source, channels=3, size=8)
    assert images.labels is not None
    assert images.labels.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("labels", [[-1, 0, 1], ["a", "b", "c"], [0.5, 1.5, 2.5], [None, 1, 2]])
def test_no_labels_unless_all_are_whole_numbers_from_zero(labels) -> None:
    items = list(zip(NOISE[:3], labels, strict=True))
    assert load(Items(items)).labels is None
    assert load(Items(items, targets=labels)).labels is None


def test_an_item_with_an_error_is_skipped_and_labels_stay_aligned() -> None:
    items = [(NOISE[0], 3), OSError("disk on fire"), (NOISE[2], 5)]
    images = load(Items(items))
    assert images.names == ("0", "2")
    assert images.labels is not None
    assert images.labels.tolist() == [3, 5]
    assert [(image.name, image.reason) for image in images.skipped] == [
        ("1", "OSError: disk on fire")
    ]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (torch.full((3, 8, 8), -0.5), r"image 0 .*-0.5 to -0.5.*Normalize"),
        (torch.full((3, 8, 8), float("nan")), r"not numbers \(NaN\)"),
        (NOISE[0].astype(np.float32), "dtype float32"),
        ("a.png", "is a str"),
        (torch.zeros(8, 8, dtype=torch.uint8), r"shape \(8, 8\)"),
        (np.zeros((8, 8, 5), np.uint8), "5 channels and 3 were asked for"),
    ],
)
def test_items_that_cannot_be_images(item, words: str) -> None:
    with pytest.raises(NonegError, match=words):
        load(Items([item]))


def test_data_sets_without_index_or_items() -> None:
    class Endless(IterableDataset):
        def __iter__(self):
            return iter(())

    with pytest.raises(NonegError, match=r"Endless.*map-style"):
        find_source(Endless())
    with pytest.raises(NonegError, match="Items has no items"):
        find_source(Items([]))


def test_only_one_thread_at_a_time_reads_an_item() -> None:
    class Fragile(Items):
        busy = threading.Lock()

        def __getitem__(self, index: int):
            assert self.busy.acquire(blocking=False)
            time.sleep(0.001)
            self.busy.release()
            return super().__getitem__(index)

    images = load(Fragile(list(np.repeat(NOISE, 50, axis=0))))
    assert images.skipped == ()


def test_tensor_dataset() -> None:
    pixels = torch.from_numpy(NOISE.transpose(0, 3, 1, 2).copy())
    images = load(TensorDataset(pixels, torch.arange(6)))
    assert np.array_equal(images.pixels, pixels.numpy())
    assert images.labels is not None
    assert images.labels.tolist() == [0, 1, 2, 3, 4, 5]


class FakeCifar(Items):
    """A stand-in for torchvision's class, without its download of 170 MB."""

    def __init__(self, root, train: bool, download: bool) -> None:
        self.root = root
        super().__init__([(Image.fromarray(image), 0) for image in NOISE[: 4 if train else 2]])


def test_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NONEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", FakeCifar)
    assert len(find_source("cifar10")) == 4
    test = find_source("CIFAR-10", split="test")
    assert len(test) == 2
    assert test.description == "cifar10, test split"
    assert (tmp_path / "cache").is_dir()
    # An existing path goes before a name.
    (tmp_path / "cifar10").mkdir()
    Image.fromarray(NOISE[0]).save(tmp_path / "cifar10" / "x.png")
    assert len(find_source("cifar10")) == 1


def test_named_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("NONEG_CACHE", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", refuse)
    with pytest.raises(NonegError, match=r"fashionmnist could not be downloaded.*give a folder"):
        find_source("fashion_mnist")


def test_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train, test = find_source("shapes", seed=3), find_source("shapes", split="test", seed=3)
    assert (len(train), len(test)) == (4000, 1000)
    assert (train.natural_channels(), train.natural_size()) == (3, 32)
    assert train.description == "shapes (built in)"
    images = load_images(test, channels=3, size=32)
    assert images.factors is not None
    assert images.factors
    assert all(len(values) == 1000 for values in images.factors.values())
    assert images.labels is not None
    assert images.classes is not None
    assert images.labels.max() < len(images.classes)
    # The first test image is no training image of this seed or of the next.
    for seed in (3, 4):
        other = load_images(find_source("shapes", seed=seed), channels=3, size=32)
        assert not (images.pixels[0] == other.pixels).all((1, 2, 3)).any()


def test_shapes_need_a_seed_from_zero() -> None:
    with pytest.raises(NonegError, match="seed of the shapes is -1"):
        find_source("shapes", seed=-1)
