"""The contract of a method, checked on every method."""

import copy
import dataclasses
from functools import cache
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from conftest import TinyBackbone
from noneg.diagnostics import effective_rank, normalized_std
from noneg.errors import NonegError
from noneg.images.shapes import draw_shapes
from noneg.methods import FORMER_METHODS, find_method, list_methods
from noneg.methods.base import HasTeacher, Method
from noneg.training.step import compute_gradient, compute_gradient_in_chunks
from noneg.views import POLICIES, draw_views

BATCH = 12
SMALL_HEADS: dict[str, Any] = {
    "projector": (24, 16),
    "predictor_hidden": 12,
    # Not a multiple of the number of keys in a batch.
    "queue": 200,
    "prototypes": 20,
    # A share of the run without gradients for the prototypes.
    "fixed": 0.0,
    "predictor_width": 32,
    "predictor_depth": 1,
}


def tiny_transformer() -> VisionTransformer:
    """Two layers on patches of 2 x 2 pixels; images may have any size."""
    return VisionTransformer(
        img_size=8,
        patch_size=2,
        dynamic_img_size=True,
        embed_dim=16,
        depth=2,
        num_heads=2,
        class_token=False,
        global_pool="avg",
        fc_norm=False,
        num_classes=0,
    )


# Methods that take no other network.
BACKBONES: dict[str, Any] = {"i_jepa": tiny_transformer}

# Methods that learn within a view.
ONE_SIZE = ("i_jepa",)


# Whitening and log-determinants need more images than coordinates, and a test has 12 to 24 images.
# Weights of agreement are those that the papers chose, for a width of 6 or 16. Heads without
# BatchNorm are for transformers.
FITTING_OPTIONS: dict[str, dict[str, Any]] = {
    "w_mse": {"projector": (24, 4), "group": 6},
    "corinfomax": {"projector": (24, 6), "invariance": 250.0 * 6 / 64},
    "emp_ssl": {"invariance": 14.0},
    "dino": {"hidden_norm": True},
    # Two batches of 12, two views each, from the first step on.
    "swav": {"queue": 60, "queue_from": 0.0},
    "simdino": {"hidden_norm": True},
}


def build(name: str, *, backbone: type[Any] = TinyBackbone, **options: Any) -> Method:
    """The method with small heads on a tiny backbone; the same weights every time."""
    definition = find_method(name)
    fields = {field.name for field in dataclasses.fields(definition.options)}
    small = {key: value for key, value in SMALL_HEADS.items() if key in fields}
    small |= FITTING_OPTIONS.get(name, {})
    torch.manual_seed(1)
    network = BACKBONES.get(name, backbone)()
    chosen = dataclasses.replace(definition.recipe("paper").options, **{**small, **options})  # type: ignore[type-var]
    method = definition.build(network, network.num_features, chosen)
    if isinstance(method, HasTeacher):
        # More features than the head has, for more images than a batch.
        method.set_targets(torch.randn(20 * BATCH, 40, generator=torch.Generator().manual_seed(2)))
    return method


def make_views(count: int = BATCH, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, 8, 8, generator=generator)
    noise = torch.rand(2, count, 3, 8, 8, generator=generator)
    return images + 0.3 * noise[0], images + 0.3 * noise[1]


def gradients(method: Method) -> dict[str, Tensor]:
    return {
        name: parameter.grad.clone()
        for name, parameter in method.named_parameters()
        if parameter.grad is not None
    }


def assert_same_gradients(actual: Method, expected: Method, tolerance: float = 1e-5) -> None:
    actual_gradients, expected_gradients = gradients(actual), gradients(expected)
    assert actual_gradients.keys() == expected_gradients.keys()
    scale = max(float(gradient.abs().max()) for gradient in expected_gradients.values())
    for name, gradient in expected_gradients.items():
        difference = float((actual_gradients[name] - gradient).abs().max())
        assert difference <= tolerance * scale, name


def train_briefly(method: Method, steps: int) -> list[float]:
    optimizer = torch.optim.AdamW(
        [parameter for parameter in method.parameters() if parameter.requires_grad], lr=1e-2
    )
    losses = []
    for number in range(steps):
        optimizer.zero_grad()
        loss, _ = compute_gradient(method, make_views(seed=number), torch.arange(BATCH))
        optimizer.step()
        method.after_step((number + 1) / steps)
        losses.append(float(loss.value.detach()))
    return losses


# Former names run the same tests on the options that they stand for.
EVERY_METHOD = (*list_methods(), *FORMER_METHODS)
every_method = pytest.mark.parametrize("name", EVERY_METHOD)


def test_all_the_known_methods_are_found() -> None:
    known = {"siamese", "byol", "simsiam", "barlow_twins", "vicreg"}
    known |= {"simclr", "contrastive", "triplet", "moco", "directpred"}
    known |= {"simsiam_em", "two_networks", "distill", "fastsiam", "i_jepa"}
    known |= {"corinfomax", "frossl", "mmcr", "tico", "vibcreg", "w_mse"}
    known |= {"emp_ssl", "simdino", "ssl_hsic", "lejepa", "visreg", "dino", "swav"}
    assert known <= set(list_methods())


@pytest.mark.parametrize("name", list_methods())
def test_paper_options_are_the_defaults(name: str) -> None:
    definition = find_method(name)
    assert definition.recipe("paper").options == definition.options()
    assert {"paper", "small"} <= definition.recipes.keys()


@every_method
def test_the_traits_are_the_networks(name: str) -> None:
    traits = find_method(name).traits
    assert traits is not None
    method = build(name)
    e = method.embed(make_views())
    assert traits.predictor == (getattr(method, "predictor", None) is not None)
    assert traits.predictor <= (e.p is not None)
    frozen = [key for key, each in method.named_parameters() if not each.requires_grad]
    assert traits.teacher == (bool(frozen) or isinstance(method, HasTeacher))


@every_method
def test_shapes_and_terms(name: str) -> None:
    method = build(name)
    e = method.embed(make_views())
    assert e.h.shape == (2, BATCH, 16)
    assert e.z.shape[:2] == (2, BATCH)
    assert e.p is None or e.p.shape[:2] == (2, BATCH)
    for other in (each for each in (e.t, e.p) if each is not None):
        assert other.shape == (2, BATCH, *(e.z if e.p is None else e.p).shape[2:])
    loss = method.objective(e)
    assert torch.isfinite(loss.value)
    torch.testing.assert_close(torch.stack(list(loss.terms.values())).sum(), loss.value)


@every_method
def test_views_may_differ_in_size(name: str) -> None:
    method = build(name)
    small = tuple(view[:, :, :6, :6] for view in make_views())
    if name in ONE_SIZE:
        with pytest.raises(NonegError, match="views of one size"):
            method.embed((*make_views(), *small))
        return
    loss, e = compute_gradient(method, (*make_views(), *small), torch.arange(BATCH))
    assert e.h.shape[0] == 4
    assert e.t is None or len(e.t) == 2
    assert torch.isfinite(loss.value)
    whole, _ = compute_gradient(method, make_views(), torch.arange(BATCH))
    assert abs(float(loss.value.detach()) - float(whole.value.detach())) > 1e-6


@every_method
def test_no_embedding_is_gathered_twice(name: str) -> None:
    e = build(name).embed(make_views())
    places = [each.untyped_storage().data_ptr() for each in (e.z, e.p, e.t) if each is not None]
    assert len(set(places)) == len(places)


@every_method
def test_every_trainable_parameter_gets_a_gradient_and_no_target_does(name: str) -> None:
    method = build(name)
    compute_gradient(method, make_views(), torch.arange(BATCH))
    for parameter_name, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.abs().max() > 0, parameter_name
        else:
            assert parameter.grad is None, parameter_name
    assert all("target" not in each for each in gradients(method))


@every_method
def test_the_target_moves(name: str) -> None:
    method = build(name)
    target = getattr(method, "target", None)
    if target is None:
        assert all(parameter.requires_grad for parameter in method.parameters())
        return
    before = copy.deepcopy(target.state_dict())
    train_briefly(method, 2)
    moved = [
        key
        for key, value in target.state_dict().items()
        if value.is_floating_point() and not torch.equal(value, before[key])
    ]
    floating = [key for key, value in before.items() if value.is_floating_point()]
    assert moved == floating


@every_method
def test_same_seed_same_run(name: str) -> None:
    first, second = build(name), build(name)
    assert train_briefly(first, 4) == train_briefly(second, 4)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


@every_method
def test_state_dict_round_trip_goes_on_alike(name: str) -> None:
    trained = build(name)
    train_briefly(trained, 3)
    restored = build(name)
    restored.load_state_dict(trained.state_dict())
    assert train_briefly(restored, 2) == train_briefly(trained, 2)


@every_method
def test_permuting_the_batch_changes_nothing(name: str) -> None:
    whole, shuffled = build(name), build(name)
    views, order = make_views(), torch.randperm(BATCH, generator=torch.Generator().manual_seed(3))
    loss, _ = compute_gradient(whole, views, torch.arange(BATCH))
    other, _ = compute_gradient(shuffled, tuple(view[order] for view in views), order)
    torch.testing.assert_close(other.value, loss.value)
    assert_same_gradients(shuffled, whole)


@every_method
@pytest.mark.parametrize("chunk_size", [1, 5, BATCH])
def test_chunks_equal_the_whole(name: str, chunk_size: int) -> None:
    # In evaluation mode BatchNorm has no batch statistics, which differ for a chunk.
    whole, chunked = build(name).eval(), build(name).eval()
    loss, _ = compute_gradient(whole, make_views(), torch.arange(BATCH))
    views = make_views()
    other, _ = compute_gradient_in_chunks(
        chunked, lambda part: tuple(view[part] for view in views), torch.arange(BATCH), chunk_size
    )
    torch.testing.assert_close(other.value, loss.value)
    assert_same_gradients(chunked, whole)


@pytest.mark.parametrize("name", [each for each in EVERY_METHOD if each not in ONE_SIZE])
def test_small_crops_in_chunks_equal_the_whole(name: str) -> None:
    whole, chunked = build(name).eval(), build(name).eval()
    views = (*make_views(), *(view[:, :, :6, :6] for view in make_views(seed=1)))
    loss, _ = compute_gradient(whole, views, torch.arange(BATCH))
    other, _ = compute_gradient_in_chunks(
        chunked, lambda part: tuple(view[part] for view in views), torch.arange(BATCH), 5
    )
    torch.testing.assert_close(other.value, loss.value)
    assert_same_gradients(chunked, whole)


@every_method
def test_accumulating_chunks_is_not_the_whole(name: str) -> None:
    """The control: if the objective couples images, the sum of chunk gradients is not the gradient.

    MoCo's couples them only to the queue, but the queue moves between chunks.
    """
    whole, accumulated = build(name).eval(), build(name).eval()
    compute_gradient(whole, make_views(), torch.arange(BATCH))
    chunks = (torch.arange(BATCH), *make_views())
    for index, *chunk in zip(*(each.split(6) for each in chunks), strict=True):
        compute_gradient(
            accumulated, tuple(chunk), index, lambda loss: (loss * 6 / BATCH).backward()
        )
    traits = find_method(name).traits
    assert traits is not None
    if traits.family in ("decorrelation", "distribution matching", "clustering", "contrastive"):
        with pytest.raises(AssertionError):
            assert_same_gradients(accumulated, whole, tolerance=1e-3)
    else:
        assert_same_gradients(accumulated, whole)


@every_method
def test_bfloat16_is_close_to_float32(name: str) -> None:
    exact, rounded = build(name), build(name)
    loss, _ = compute_gradient(exact, make_views(), torch.arange(BATCH))
    with torch.autocast("cpu", torch.bfloat16):
        other, e = compute_gradient(rounded, make_views(), torch.arange(BATCH))
    assert other.value.dtype == torch.float32
    assert e.h.dtype in (torch.bfloat16, torch.float32)
    expected, actual = float(loss.value.detach()), float(other.value.detach())
    assert abs(actual - expected) < 0.1 * max(abs(expected), 0.01)


@cache
def shapes() -> Tensor:
    return torch.from_numpy(draw_shapes(64, seed=0, size=16).pixels)


@cache
def views_of_shapes(size: int, epoch: int) -> tuple[Tensor, ...]:
    return draw_views(
        shapes(), torch.arange(64), POLICIES["gentle"](size), size=size, seed=0, epoch=epoch,
        mean=(0.5,) * 3, std=(0.25,) * 3,
    )  # fmt: skip


@every_method
def test_a_short_run_keeps_its_rank_but_for_the_control(name: str) -> None:
    # 64 patches of 2 pixels would take a minute.
    size = 8 if name in BACKBONES else 16
    # A queue has to hold the views of a batch, which is larger here.
    method = build(name, **({"queue": 256} if name == "swav" else {}))
    optimizer = torch.optim.AdamW(
        [parameter for parameter in method.parameters() if parameter.requires_grad], lr=1e-2
    )
    steps = 120
    for number in range(steps):
        optimizer.zero_grad()
        _, e = compute_gradient(method, views_of_shapes(size, number), torch.arange(64))
        optimizer.step()
        method.after_step((number + 1) / steps)
    z = e.z[0].detach()
    if name == "siamese":
        assert normalized_std(z) < 0.05
    else:
        # Without a predictor the rank is lower, like the paper's accuracy (55.0 % against 68.1 %).
        assert effective_rank(z) > (2 if name == "simsiam_em" else 3)
        assert normalized_std(z) > 0.3
