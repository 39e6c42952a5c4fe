"""A batch in chunks has the same gradient as the whole batch."""

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_contract import assert_same_gradients, build, make_views
from torch import Tensor, nn

import noneg
from noneg.errors import NonegError
from noneg.methods import list_methods
from noneg.methods.base import Embeddings, Loss, Method
from noneg.networks.norms import batch_norms, use_group_norm
from noneg.training.step import Views, chunks_of, compute_gradient, compute_gradient_in_chunks

BATCH = 14


def in_chunks(
    method: Method, chunk_size: int, views: Views | None = None, seed: int = 0
) -> tuple[Loss, Embeddings]:
    whole = make_views(BATCH) if views is None else views
    return compute_gradient_in_chunks(
        method,
        lambda part: tuple(view[part] for view in whole),
        torch.arange(BATCH),
        chunk_size,
        seed=seed,
    )


def in_one_piece(method: Method, seed: int = 0) -> tuple[Loss, Embeddings]:
    return compute_gradient(method, make_views(BATCH), torch.arange(BATCH), seed=seed)


@pytest.mark.parametrize(("count", "size"), [(14, 5), (14, 14), (14, 100), (7, 3), (2048, 128)])
def test_chunks_are_even_and_no_larger_than_asked(count: int, size: int) -> None:
    parts = chunks_of(count, size)
    assert [each for part in parts for each in range(count)[part]] == list(range(count))
    lengths = [part.stop - part.start for part in parts]
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1
    assert len(parts) == -(-count // size)


@pytest.mark.parametrize(("count", "size"), [(3, 2), (7, 2), (14, 2)])
def test_no_chunk_is_a_single_image(count: int, size: int) -> None:
    lengths = [part.stop - part.start for part in chunks_of(count, size)]
    assert sum(lengths) == count
    assert set(lengths) <= {2, 3}


@pytest.mark.parametrize("chunk_size", [2, 5, 7])
@pytest.mark.parametrize("name", list_methods())
def test_training_without_batch_statistics_is_the_same(name: str, chunk_size: int) -> None:
    whole, chunked = build(name), build(name)
    use_group_norm(whole)
    use_group_norm(chunked)
    step, e = in_one_piece(whole)
    other, f = in_chunks(chunked, chunk_size)
    torch.testing.assert_close(other.value, step.value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(dict(other.terms), dict(step.terms), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(f.z, e.z)
    assert_same_gradients(chunked, whole)


@pytest.mark.parametrize("name", list_methods())
def test_one_chunk_equals_the_whole_batch_with_batch_statistics(name: str) -> None:
    whole, chunked = build(name), build(name)
    step, _ = in_one_piece(whole)
    other, _ = in_chunks(chunked, BATCH)
    torch.testing.assert_close(other.value, step.value)
    assert_same_gradients(chunked, whole)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(chunked.state_dict()[key], value, msg=key)


@pytest.mark.parametrize("name", list_methods())
def test_lower_precision_changes_little(name: str) -> None:
    """Chunks under autocast are as close to float32 as the whole batch under autocast is."""
    exact, rounded, chunked = build(name), build(name), build(name)
    for method in (exact, rounded, chunked):
        use_group_norm(method)
    in_one_piece(exact)
    with torch.autocast("cpu", torch.bfloat16):
        in_one_piece(rounded)
        step, _ = in_chunks(chunked, 5)
    assert step.value.dtype == torch.float32

    def error(method: Method) -> float:
        pairs = [
            (one.grad, other.grad)
            for one, other in zip(method.parameters(), exact.parameters(), strict=True)
            if one.grad is not None and other.grad is not None
        ]
        wrong = sum(float((one - other).square().sum()) for one, other in pairs)
        return (wrong / sum(float(other.square().sum()) for _, other in pairs)) ** 0.5

    assert error(chunked) < 2 * error(rounded) + 1e-3


class Shaky(nn.Module):
    """Has dropout, and records its outputs."""

    num_features = 16

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(3 * 8 * 8, 16)
        self.dropout = nn.Dropout(0.5)
        self.outputs: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        h: Tensor = self.dropout(self.mix(images.flatten(1)))
        self.outputs.append(h.detach().clone())
        return h


def test_dropout_is_the_same_in_both_passes() -> None:
    method = build("vicreg", backbone=Shaky)
    method.eval()
    shaky = method.backbone
    assert isinstance(shaky, Shaky)
    shaky.dropout.train()
    in_chunks(method, 5)
    first, second = shaky.outputs[:6], shaky.outputs[6:]
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)
    assert (first[0] == 0).float().mean() > 0.3
    # Another chunk has other masks, and so has another step.
    assert len(first[2]) == len(first[4]) == 5
    assert not torch.equal(first[2] == 0, first[4] == 0)
    shaky.outputs.clear()
    in_chunks(method, 5, seed=1)
    assert not torch.equal(first[0] == 0, shaky.outputs[0] == 0)


def test_the_gradient_with_dropout_matches_finite_differences() -> None:
    """Along the gradient; the same seed gives the same masks."""
    method = build("vicreg", backbone=Shaky).eval().double()
    shaky = method.backbone
    assert isinstance(shaky, Shaky)
    shaky.dropout.train()
    views = tuple(view.double() for view in make_views(BATCH))
    in_chunks(method, 5, views)
    weight = shaky.mix.weight
    assert weight.grad is not None
    direction = weight.grad / weight.grad.norm()
    slope = float((weight.grad * direction).sum())
    losses = []
    for shift in (-1e-4, 2e-4):
        with torch.no_grad():
            weight += shift * direction
        losses.append(float(in_chunks(method, 5, views)[0].value.detach()))
    assert (losses[1] - losses[0]) / 2e-4 == pytest.approx(slope, rel=1e-4)


def test_only_one_chunk_is_drawn_and_embedded_at_a_time() -> None:
    method = build("vicreg", backbone=Shaky)
    shaky = method.backbone
    assert isinstance(shaky, Shaky)
    views, asked = make_views(BATCH), []

    def draw(part: slice) -> Views:
        asked.append(part)
        return tuple(view[part] for view in views)

    compute_gradient_in_chunks(method, draw, torch.arange(BATCH), 5)
    assert [each.stop - each.start for each in asked] == [4, 5, 5] * 2
    assert max(len(each) for each in shaky.outputs) == 5


def test_running_statistics_are_updated_once_per_step() -> None:
    """With two equal halves, the statistics of each chunk are those of the batch."""
    whole, chunked = build("byol"), build("byol")
    count = BATCH // 2
    half = make_views(BATCH)[0][:count]
    # The same view twice, because the order of updates by two views would differ.
    views = (torch.cat([half, half]),) * 2
    compute_gradient(whole, views, torch.arange(BATCH))
    in_chunks(chunked, count, views)
    assert len(batch_norms(whole)) == 3
    for one, other in zip(batch_norms(whole), batch_norms(chunked), strict=True):
        assert one.running_mean is not None
        assert other.running_mean is not None
        assert one.running_var is not None
        assert other.running_var is not None
        torch.testing.assert_close(other.running_mean, one.running_mean)
        # Two views, so two updates with momentum 0.1 from a variance of 1. The unbiased variance of
        # a half has another divisor. The target's statistics are not updated on their own.
        start = (1 - one.momentum) ** 2 if one.momentum else 1.0
        factor = (count / (count - 1)) / (BATCH / (BATCH - 1))
        torch.testing.assert_close(other.running_var - start, (one.running_var - start) * factor)
        assert one.momentum == other.momentum
        assert other.track_running_stats


def test_accumulated_gradients_of_every_chunk_are_averaged_once() -> None:
    method = build("vicreg")
    inside = 0
    log: list[bool] = []

    @contextmanager
    def without_averaging():  # type: ignore[no-untyped-def]
        nonlocal inside
        inside += 1
        yield
        inside -= 1

    def backward(loss: Tensor) -> None:
        log.append(inside == 0)
        loss.backward()

    views = make_views(BATCH)
    context: Callable[[], AbstractContextManager[None]] = without_averaging
    compute_gradient_in_chunks(
        method,
        lambda part: tuple(view[part] for view in views),
        torch.arange(BATCH),
        5,
        backward,
        without_averaging=context,
    )
    assert log == [False, False, True]


SETTINGS = {
    "epochs": 3,
    "batch_size": 16,
    "backbone": "small_resnet",
    "size": 16,
    "method": "byol",
    "options": {"projector": (32, 16), "predictor_hidden": 16},
    "evaluate": False,
    "accelerator": "cpu",
    "precision": "32-true",
    # AdamW would scale up rounding errors in small gradients, SGD does not.
    "optimizer": "sgd",
    "learning_rate": 0.05,
}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3), dtype=np.uint8)


def difference(one: Path, other: Path) -> float:
    first, second = (load_file(run / "encoder" / "encoder.safetensors") for run in (one, other))
    assert first.keys() == second.keys()
    scale = max(float(value.abs().max()) for value in first.values())
    return max(float((first[key] - second[key]).abs().max()) for key in first) / scale


@pytest.mark.parametrize("norm", ["group", "frozen"])
def test_a_run_in_chunks_has_the_same_weights(
    norm: str, images: np.ndarray, tmp_path: Path
) -> None:
    whole = noneg.train(images, out=str(tmp_path / "whole"), norm=norm, **SETTINGS)
    chunked = noneg.train(
        images, out=str(tmp_path / "chunked"), norm=norm, chunk_size=5, **SETTINGS
    )
    assert difference(whole.directory, chunked.directory) < 1e-5
    if norm == "frozen":
        # The statistics are measured before the first step, and do not change.
        short = noneg.train(
            images, out=str(tmp_path / "short"), norm=norm, **SETTINGS | {"epochs": 1}
        )
        first, last = (
            load_file(run.directory / "encoder" / "encoder.safetensors") for run in (short, whole)
        )
        assert first["bn1.running_mean"].any()
        assert torch.equal(first["bn1.running_mean"], last["bn1.running_mean"])
        assert not torch.equal(first["conv1.weight"], last["conv1.weight"])
    # The loaded encoder is the same, with any norm.
    again = noneg.load(chunked.directory)
    assert again.info.norm == norm
    np.testing.assert_allclose(again.embed(images), chunked.encoder.embed(images), atol=1e-5)


def test_with_batch_norm_a_run_in_chunks_differs(
    images: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The control; with a chunk as large as the batch nothing differs."""
    runs = [
        noneg.train(images, out=str(tmp_path / str(size)), chunk_size=size, **SETTINGS)
        for size in (None, 16, 100, 8)
    ]
    whole, equal, larger, smaller = (run.directory for run in runs)
    assert difference(whole, equal) == difference(whole, larger) == 0
    assert difference(whole, smaller) > 1e-3
    assert "BatchNorm sees 8 images of each process at a time" in capsys.readouterr().out


def test_an_empty_chunk_is_refused(images: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(NonegError, match="--chunk-size must be at least 2: 0"):
        noneg.train(images, out=str(tmp_path), chunk_size=0)
