"""The precision of a run: wrong kernels are found, and the faster correct precision is chosen."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import noneg
from conftest import TinyBackbone
from noneg.errors import NonegError
from noneg.methods import find_method
from noneg.methods.base import Method
from noneg.methods.vicreg import Options, VICReg
from noneg.training import precision
from noneg.training.hardware import Hardware
from noneg.training.precision import choose_precision, find_faulty_layer

CPU = Hardware("cpu", 1, 1, "auto")


class ForgetsTaps(torch.autograd.Function):
    """A linear layer whose weight gradient is changed by `fault`, but only in bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, fault: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.is_low = torch.is_autocast_enabled("cpu")
        ctx.fault = fault
        kind = torch.bfloat16 if ctx.is_low else x.dtype
        return x.to(kind) @ weight.to(kind).T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0].float()
        of_weight = gradient.T @ x.float()
        return gradient @ weight, ctx.fault(of_weight) if ctx.is_low else of_weight, None


class FaultyLinear(nn.Linear):
    """See `ForgetsTaps`."""

    fault: Callable[[Tensor], Tensor]

    def forward(self, input: Tensor) -> Tensor:
        result: Tensor = ForgetsTaps.apply(input, self.weight, self.fault)
        return result


def zero_a_column(gradient: Tensor) -> Tensor:
    wrong = gradient.clone()
    wrong[:, 3] = 0
    return wrong


def make_method(fault: Callable[[Tensor], Tensor] | None = None) -> Method:
    torch.manual_seed(0)
    method = VICReg(TinyBackbone(), 16, Options(projector=(32, 16)))
    if fault is not None:
        layer = FaultyLinear(32, 16, bias=False)
        layer.fault = staticmethod(fault)  # type: ignore[assignment]
        layer.fault = fault
        method.projector[3] = layer
    return method


def draw(images: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(images, 3, 16, 16, generator=generator) for _ in range(2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("network", ["small_resnet", "vit_tiny_patch16_224", "convnext_atto"])
def test_sound_networks_pass(network: str, dtype: torch.dtype) -> None:
    from noneg.networks.backbones import build_backbone

    torch.manual_seed(0)
    backbone = build_backbone(network, channels=3, size=32)
    width = int(backbone.num_features)
    method = VICReg(backbone, width, Options(projector=(64, 32)))
    views = tuple(torch.randn(8, 3, 32, 32) for _ in range(2))
    method.to(memory_format=torch.channels_last)
    assert find_faulty_layer(method, views, dtype) is None


@pytest.mark.parametrize(
    "fault",
    [
        zero_a_column,
        lambda gradient: gradient * 1.5,
        lambda gradient: torch.full_like(gradient, torch.nan),
        lambda gradient: gradient.flip(0),
    ],
    ids=["zeros", "scale", "nan", "order"],
)
def test_a_faulty_layer_is_found_by_name(fault: Callable[[Tensor], Tensor]) -> None:
    assert find_faulty_layer(make_method(), draw(32), torch.bfloat16) is None
    assert find_faulty_layer(make_method(fault), draw(32), torch.bfloat16) == "projector.3"


def test_views_of_two_sizes_are_checked_without_changing_their_gradients() -> None:
    """Layers are called once per view; the gradients that are recorded go to the first call."""
    large, other = draw(8)
    views = (large, other[:, :, :10, :10])
    method, expected = make_method(), make_method()
    torch.manual_seed(1)
    assert find_faulty_layer(method, views, torch.bfloat16) is None
    torch.manual_seed(1)
    e = expected.embed(views)
    torch.autograd.backward((e.h, e.z), [torch.randn_like(each) for each in (e.h, e.z)])
    torch.manual_seed(1)
    calls = precision._record_calls(method, views)
    assert calls["backbone.mix"].gradient.shape[-2:] == (4, 4)
    for one, same in zip(method.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one.grad, same.grad)


def test_a_fault_is_reported_and_float32_is_used() -> None:
    for asked in ("bf16-mixed", "bf16-true"):
        choice = choose_precision(asked, CPU, make_method(zero_a_column), draw, torch.device("cpu"))
        assert choice.name == "32-true"
        assert choice.check == "failed: projector.3"
        assert "wrong gradient in the layer projector.3" in choice.reason
    sound = choose_precision("bf16-mixed", CPU, make_method(), draw, torch.device("cpu"))
    assert (sound.name, sound.check) == ("bf16-mixed", "passed")


@pytest.mark.parametrize("speeds", [(100.0, 250.0), (250.0, 100.0)])
def test_the_faster_precision_is_chosen_and_both_speeds_are_reported(
    speeds: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_computes_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "_measure_speeds", lambda *_: speeds)
    choice = choose_precision("auto", CPU, make_method(), draw, torch.device("cpu"))
    assert choice.name == ("bf16-mixed" if speeds[1] > speeds[0] else "32-true")
    assert choice.images_per_second == {"32-true": speeds[0], "bf16-mixed": speeds[1]}
    assert "250 images/s" in choice.reason
    assert "100)" in choice.reason


def test_measuring_does_not_change_the_network_and_the_random_state() -> None:
    method = make_method()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    speeds = precision._measure_speeds(make_method(), draw(8), torch.bfloat16)
    assert all(speed > 0 for speed in speeds)
    torch.manual_seed(1)
    choose_precision("bf16-mixed", CPU, method, draw, torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())


def test_without_bfloat16_instructions_float32_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_computes_bfloat16", lambda: False)
    choice = choose_precision("auto", CPU, make_method(), draw, torch.device("cpu"))
    assert (choice.name, choice.images_per_second) == ("32-true", {})
    asked = choose_precision("32-true", CPU, make_method(), draw, torch.device("cpu"))
    assert asked.check == "not needed for 32-true"


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)


def test_a_resumed_run_keeps_its_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_computes_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "_measure_speeds", lambda *_: (100.0, 200.0))
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 8, "evaluate": False, "report": False}
    run = noneg.train(noise(), out=str(tmp_path), **settings)
    assert run.config.precision == "bf16-mixed"
    monkeypatch.setattr(precision, "_measure_speeds", lambda *_: (200.0, 100.0))
    resumed = noneg.train(noise(), resume_from=tmp_path)
    assert resumed.config.precision == "bf16-mixed"
    recorded = json.loads((tmp_path / "run.json").read_text())["precision"]
    assert recorded["check"] == "passed"
    assert recorded["images_per_second"] == {"32-true": 100.0, "bf16-mixed": 200.0}


@pytest.mark.parametrize("asked", ["bf16-mixed", "bf16-true"])
def test_a_run_with_a_faulty_layer_equals_the_float32_run(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 8, "evaluate": False, "report": False}
    monkeypatch.setattr(precision, "find_faulty_layer", lambda *_: "backbone.conv1")
    fallen = noneg.train(noise(), out=str(tmp_path / "a"), precision=asked, **settings)
    assert "wrong gradient in the layer backbone.conv1" in capsys.readouterr().out
    full = noneg.train(noise(), out=str(tmp_path / "b"), precision="32-true", **settings)
    weights = [run.encoder.module.state_dict() for run in (fallen, full)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    recorded = json.loads((tmp_path / "a" / "run.json").read_text())["precision"]
    assert recorded["check"] == "failed: backbone.conv1"


def test_a_strided_convolution_over_a_single_pixel_is_never_computed_in_bfloat16() -> None:
    """OneDNN leaves memory unwritten in its weight gradient, in some calls (torch 2.14.1)."""

    class SinglePixel(nn.Module):
        num_features = 64

        def __init__(self, kernel: int, stride: int) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(64, 64, kernel, stride, kernel // 2, bias=False)

        def forward(self, images: Tensor) -> Tensor:
            output: Tensor = self.convolution(images)
            return output.flatten(1)

    def faulty(kernel: int, stride: int, side: int, dtype: torch.dtype) -> str | None:
        torch.manual_seed(0)
        width = 64 * (side // stride or 1) ** 2
        method = VICReg(SinglePixel(kernel, stride), width, Options(projector=(32, 16)))
        views = tuple(torch.randn(8, 64, side, side) for _ in range(2))
        return find_faulty_layer(method, views, dtype)

    for _ in range(5):
        assert faulty(3, 2, 1, torch.bfloat16) == "backbone.convolution"
        assert faulty(1, 2, 1, torch.bfloat16) is None
        assert faulty(3, 2, 2, torch.bfloat16) is None
        assert faulty(3, 2, 1, torch.float16) is None


def test_a_run_whose_images_are_too_small_for_its_backbone_stays_finite(tmp_path: Path) -> None:
    """Without the check its weights were often not finite after a few steps."""
    images = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), dtype=np.uint8)
    run = noneg.train(
        images,
        method="vicreg",
        size=16,
        epochs=2,
        batch_size=8,
        backbone="test_byobnet",
        precision="bf16-mixed",
        evaluate=False,
        report=False,
        out=str(tmp_path / "run"),
    )
    recorded = json.loads((run.directory / "run.json").read_text())["precision"]
    assert recorded["name"] == "32-true"
    assert recorded["check"] == "failed: backbone.stages.3.0.conv2_kxk.conv"


@pytest.mark.parametrize(
    ("name", "kept"), [("byol", "target"), ("dino", "target"), ("corinfomax", "mean")]
)
def test_averages_over_steps_are_not_kept_in_16_bits(name: str, kept: str) -> None:
    """At a decay of 0.996, an average in bfloat16 stops half-way: its steps are rounded away."""
    definition = find_method(name)
    backbone = TinyBackbone()
    options = definition.recipe("small").options
    method = definition.build(backbone, backbone.num_features, options)
    with pytest.raises(NonegError, match=f"the method's {kept} in bfloat16.*give bf16-mixed"):
        choose_precision("bf16-true", CPU, method, lambda _most: (), torch.device("cpu"))
