"""The precision of a run: the fastest one with correct gradients, measured before it starts.

A CPU with bfloat16 instructions is not always faster with them, and a kernel may be wrong: oneDNN's
bfloat16 weight gradient of a 3 x 3 convolution of stride 2 over a single pixel left uninitialized
memory in two of its taps (torch 2.14.1, AVX512-BF16 without AMX). So speed and gradients are
measured, on the run's network and images.
"""

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from noneg.errors import NonegError
from noneg.methods.base import Method
from noneg.training.hardware import Hardware, cpu_computes_bfloat16

FLOAT32: Final = "32-true"

_LOWER: Final = {
    "bf16-mixed": torch.bfloat16,
    "bf16-true": torch.bfloat16,
    "16-mixed": torch.float16,
    "16-true": torch.float16,
}
_NAMES: Final = {FLOAT32: "float32"} | {
    name: str(dtype).removeprefix("torch.") for name, dtype in _LOWER.items()
}

# Aimed seconds of a timed pass, the most images in it, and the number of repetitions.
_PASS, _MOST_IMAGES, _ROUNDS = 0.15, 64, 5

_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

# Products of bfloat16 numbers are exact in float32. Their sums are rounded to 1/256 at the end, and
# perhaps once for each partial sum. On six sound networks the error was below 0.06.
_LARGEST_ERROR = 0.1


@final
@dataclass(frozen=True)
class PrecisionChoice:
    """The precision in which the network computes.

    Args:
        name: as in Lightning: "32-true", "bf16-mixed", "16-mixed" ...
        reason: the reason for it, for people.
        check: "passed"; "failed: LAYER" if float32 was used instead; else why there was no check.
        images_per_second: of forward and backward passes, by precision; empty if not compared.
    """

    name: str
    reason: str
    check: str
    images_per_second: dict[str, float] = field(default_factory=dict)


def choose_precision(
    asked: str,
    hardware: Hardware,
    method: Method,
    draw: Callable[[int], tuple[Float[Tensor, "batch channels _ _"], ...]],
    device: torch.device,
) -> PrecisionChoice:
    """Resolve "auto", and check the gradients of precisions below float32.

    Args:
        asked: the setting `precision`: "auto", or a name as in Lightning.
        hardware: the devices of the run.
        method: the network; a copy is measured.
        draw: returns the views of at most a number of the run's images: no more than the run
            embeds at once, because a kernel may be wrong for few images only.
        device: the device of this process.

    Raises:
        NonegError: weights would be kept in 16 bits, and the method averages over steps.
    """
    name = _lower_precision_of(hardware) if asked == "auto" else asked
    if name is None:
        return PrecisionChoice(
            FLOAT32, "float32, the hardware has no bfloat16 instructions", "not needed for float32"
        )
    if name not in _LOWER:
        return PrecisionChoice(name, f"{name} as asked", f"not needed for {name}")
    if name.endswith("-true") and (kept := _averages_of(method)):
        raise NonegError(
            f"--precision {name} would keep the method's {kept} in {_NAMES[name]}, where an "
            f"average over steps stands still: give {name.replace('true', 'mixed')}"
        )
    if hardware.strategy == "fsdp":
        return PrecisionChoice(name, f"{_NAMES[name]}, not checked", "not possible with fsdp")
    dtype = _LOWER[name]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        method = copy.deepcopy(method).to(device).train()
        views = tuple(view.to(device) for view in draw(_MOST_IMAGES))
        views = _affordable(method, views)
        faulty = find_faulty_layer(method, views, dtype)
        if faulty is not None:
            return PrecisionChoice(
                FLOAT32,
                f"float32, because {_NAMES[name]} computes a wrong gradient in the layer {faulty}",
                f"failed: {faulty}",
            )
        if asked != "auto":
            return PrecisionChoice(name, f"{name} as asked", "passed")
        speeds = _measure_speeds(method, views, dtype)
    speed = {FLOAT32: speeds[0], name: speeds[1]}
    chosen, other = (name, FLOAT32) if speeds[1] > speeds[0] else (FLOAT32, name)
    return PrecisionChoice(
        chosen,
        f"{_NAMES[chosen]}, {speed[chosen]:.0f} images/s ({_NAMES[other]}: {speed[other]:.0f})",
        "passed",
        {each: round(value, 1) for each, value in speed.items()},
    )


def _lower_precision_of(hardware: Hardware) -> str | None:
    """A precision below float32 that may be faster; None if there is none."""
    if hardware.on_cpu:
        return "bf16-mixed" if cpu_computes_bfloat16() else None
    if hardware.accelerator in ("gpu", "cuda") and torch.cuda.is_available():
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if has_bfloat16 else "16-mixed"
    return None


def _averages_of(method: Method) -> str | None:
    """What the method averages over steps: a network without gradients, or a buffer of its own."""
    for name, part in method.named_children():
        if part is not method.backbone and any(not p.requires_grad for p in part.parameters()):
            return name
    return next((name for name, _ in method.named_buffers(recurse=False)), None)


def _affordable(method: Method, views: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """As many of the images as fit into the time of one pass."""
    few = tuple(view[:8] for view in views)
    _pass(method, few, None)
    seconds = _seconds(partial(_pass, method, few, None), few[0])
    images = max(8, min(_MOST_IMAGES, round(8 * _PASS / max(seconds, 1e-6))))
    return tuple(view[:images] for view in views)


def _measure_speeds(
    method: Method, views: tuple[Tensor, ...], dtype: torch.dtype
) -> tuple[float, float]:
    """Images per second in float32 and in `dtype`, in turns: other load then slows down both."""
    precisions = (None, dtype)
    for each in precisions:
        _pass(method, views, each)
    seconds: list[list[float]] = [[], []]
    for _ in range(_ROUNDS):
        for taken, each in zip(seconds, precisions, strict=True):
            taken.append(_seconds(partial(_pass, method, views, each), views[0]))
    full, lower = (len(views[0]) / statistics.median(taken) for taken in seconds)
    return full, lower


def _seconds(run: Callable[[], None], on: Tensor) -> float:
    def wait() -> None:
        if on.is_cuda:
            torch.cuda.synchronize(on.device)

    wait()
    started = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - started


def _pass(method: Method, views: tuple[Tensor, ...], dtype: torch.dtype | None) -> None:
    """Forward and backward, with random numbers instead of the loss's gradient."""
    method.zero_grad()
    with _autocast(views[0], dtype):
        e = method.embed(views)
    trained = [each for each in (e.h, e.z, e.p) if each is not None and each.requires_grad]
    torch.autograd.backward(trained, [torch.randn_like(each) for each in trained])


def _autocast(on: Tensor, dtype: torch.dtype | None) -> torch.autocast | nullcontext[None]:
    return nullcontext() if dtype is None else torch.autocast(on.device.type, dtype=dtype)


@final
@dataclass(frozen=True)
class _Call:
    """One call of a layer: its input, and the gradient with respect to its output."""

    layer: nn.Module
    input: Tensor
    gradient: Tensor


def find_faulty_layer(
    method: Method,
    views: tuple[Float[Tensor, "batch channels _ _"], ...],
    dtype: torch.dtype,
) -> str | None:
    """The first layer whose output or gradients in `dtype` differ too much from float32.

    Each kind of layer is computed in both precisions, on its inputs and gradients in this network,
    which are first rounded to `dtype`. Convolutions and linear layers compute sums of products: the
    error of each sum may be at most a tenth of (the size of the sum plus the root of the sum of the
    squared products). For other layers the norm of the error may be at most a tenth of the norm.
    Operations between layers, such as the products in attention, are not checked.

    Args:
        method: the network, in training mode. Its running statistics and gradients change.
        views: one tensor for each view.
        dtype: torch.bfloat16 or torch.float16.

    Returns:
        The layer's name in the method, or None.
    """
    seen: set[tuple[str, torch.Size]] = set()
    for name, call in _record_calls(method, views).items():
        # Equal layers with inputs of the same shape use the same kernels.
        kind = (repr(call.layer), call.input.shape)
        if kind not in seen and (_is_known_fault(call, dtype) or not _agrees(call, dtype)):
            return name
        seen.add(kind)
    return None


def _record_calls(method: Method, views: tuple[Tensor, ...]) -> dict[str, _Call]:
    """The first call of each layer in one forward and backward pass in float32."""
    inputs: dict[str, Tensor] = {}
    gradients: dict[str, Tensor] = {}
    listened: set[str] = set()
    hooks: list[torch.utils.hooks.RemovableHandle] = []

    def listen(name: str, layer: nn.Module) -> None:
        def before(_: nn.Module, arguments: tuple[object, ...]) -> None:
            if len(arguments) == 1 and isinstance(arguments[0], Tensor):
                # A copy, because this layer or the next may change its input in place.
                inputs.setdefault(name, arguments[0].detach().clone())

        def after(_: nn.Module, __: object, output: object) -> None:
            # The gradient of the first call, which the backward pass reaches last.
            if isinstance(output, Tensor) and output.requires_grad and name not in listened:
                listened.add(name)
                # What a hook returns would take the gradient's place.
                output.register_hook(  # type: ignore[no-untyped-call]
                    lambda each: gradients.update({name: each.detach()})
                )

        hooks.append(layer.register_forward_pre_hook(before))
        hooks.append(layer.register_forward_hook(after))

    layers = {
        name: layer
        for name, layer in method.named_modules()
        # timm's BatchNorm holds its activation.
        if isinstance(layer, _BatchNorm) or not list(layer.children())
    }
    for name, layer in layers.items():
        listen(name, layer)
    try:
        _pass(method, views, None)
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: _Call(layer, inputs[name], gradients[name])
        for name, layer in layers.items()
        if name in inputs and name in gradients
    }


def _is_known_fault(call: _Call, dtype: torch.dtype) -> bool:
    """The fault in this module's docstring, which shows in some calls of a layer only.

    What the kernel leaves unwritten is memory of its own, which often holds zeros.
    """
    layer = call.layer
    return (
        isinstance(layer, nn.Conv2d)
        and call.input.device.type == "cpu"
        and dtype == torch.bfloat16
        and max(layer.stride) > 1
        and max(layer.kernel_size) > 1
        and call.input.shape[-2:] == (1, 1)
    )


def _agrees(call: _Call, dtype: torch.dtype) -> bool:
    largest = call.gradient.abs().max()
    if not call.input.is_floating_point() or not bool(largest > 0):
        return True
    layer = copy.deepcopy(call.layer)
    for parameter in layer.parameters():
        parameter.data = _rounded(parameter.data, dtype)
    x = _rounded(call.input, dtype)
    gradient = _rounded(call.gradient / largest, dtype)
    expected = _results(layer, x, gradient, None)
    _leave_nan_behind((x, *layer.parameters()))
    found = _results(layer, x, gradient, dtype)
    if isinstance(layer, _LINEAR):
        for parameter in layer.parameters():
            parameter.data = parameter.data.square()
        squares = _results(layer, x.square(), gradient.square(), None)
        kind = torch.finfo(dtype)
        return all(
            bool(
                (
                    (one - other).abs() <= _LARGEST_ERROR * (other.abs() + each.sqrt()) + kind.tiny
                ).all()
            )
            for one, other, each in zip(found, expected, squares, strict=True)
        )
    return all(
        bool((one - other).norm() <= _LARGEST_ERROR * other.norm() + 1e-6)
        for one, other in zip(found, expected, strict=True)
    )


def _leave_nan_behind(tensors: Sequence[Tensor]) -> None:
    """Free memory that is full of NaN, of the sizes that gradients of `tensors` will take.

    Memory that a kernel forgets to write is often 0, by chance what it should be.
    """
    if any(each.device.type != "cpu" for each in tensors):
        return
    sizes = [each.numel() * size // 4 for each in tensors for size in (2, 4)]
    freed = [torch.full((size,), torch.nan) for size in sizes for _ in range(4)]
    del freed


def _rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(dtype).float()


def _results(
    layer: nn.Module, x: Tensor, gradient: Tensor, dtype: torch.dtype | None
) -> list[Tensor]:
    """Output, gradient of the input, and gradients of the parameters, in float32."""
    x = x.clone().requires_grad_()
    parameters = [each for each in layer.parameters() if each.requires_grad]
    with _autocast(x, dtype):
        output = layer(x.clone())
    gradients = torch.autograd.grad(
        output, [x, *parameters], gradient.to(output.dtype), allow_unused=True
    )
    return [each.detach().float() for each in (output, *gradients) if each is not None]
