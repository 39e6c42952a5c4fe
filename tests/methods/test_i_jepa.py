"""I-JEPA against a transcription without padding, its collapse, and learning against a control."""

from typing import Any

import numpy as np
import pytest
import torch
from test_contract import BATCH, build, make_views, tiny_transformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from conftest import TinyBackbone
from noneg.diagnostics import normalized_std
from noneg.errors import NonegError
from noneg.methods import find_method
from noneg.methods.i_jepa import IJEPA, Options
from noneg.networks.patch_blocks import draw_blocks
from noneg.training.step import compute_gradient

GRID, KEY = (4, 4), 5


def i_jepa(**options: Any) -> IJEPA:
    method = build("i_jepa", **options)
    assert isinstance(method, IJEPA)
    return method


def of_class_tokens() -> VisionTransformer:
    return VisionTransformer(img_size=8, patch_size=2, embed_dim=16, depth=1, num_heads=2)


def places(width: int) -> Tensor:
    """Sines and cosines of rows and columns, at `width / 4` frequencies."""
    frequency = 1e4 ** -(np.arange(width // 4) / (width // 4))
    rows, columns = np.divmod(np.arange(16), 4)
    angles = np.concatenate([np.outer(rows, frequency), np.outer(columns, frequency)], axis=1)
    return torch.from_numpy(np.concatenate([np.sin(angles), np.cos(angles)], axis=1))


def run(blocks: nn.ModuleList | nn.Sequential, x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x)
    return x


def test_the_papers_options_are_the_defaults() -> None:
    assert Options() == Options(4, (0.15, 0.2), (0.75, 1.5), (0.85, 1.0), 384, 12, 0.996)


def test_predictions_and_loss_are_those_of_each_image_by_itself() -> None:
    """Hidden patches are left out, not masked, and nothing is padded; in float64."""
    method = i_jepa().double()
    with torch.no_grad():
        for parameter in (*method.backbone.parameters(), *method.target.parameters()):
            # At the start, all tokens are nearly the same.
            parameter.add_(0.1 * torch.randn_like(parameter))
    views = tuple(view.double() for view in make_views())
    index = torch.arange(100, 100 + BATCH)
    e = method.embed_in_step(views, KEY, index)
    assert e.p is not None
    options, predictor, vit = method.options, method.predictor, method.backbone
    assert isinstance(vit, VisionTransformer)
    target = method.target[0]
    distances = []
    for number, view in enumerate(views):
        drawn = draw_blocks(
            KEY,
            index.numpy(),
            GRID,
            view=number,
            blocks=options.blocks,
            target_scale=options.target_scale,
            target_aspect=options.target_aspect,
            context_scale=options.context_scale,
        )
        # Batches are padded.
        assert len(np.unique(drawn.context.sum(axis=1))) > 1
        for image in range(BATCH):
            pixels = view[image : image + 1]
            every = vit.patch_embed(pixels).flatten(1, 2) + vit.pos_embed
            seen = torch.from_numpy(np.flatnonzero(drawn.context[image]))
            tokens = vit.norm(run(vit.blocks, every[:, seen]))
            goal = target.forward_features(pixels)[0].numpy()
            goal -= goal.mean(axis=1, keepdims=True)
            goal /= np.sqrt(goal.var(axis=1, keepdims=True) + 1e-5)
            np.testing.assert_allclose(e.z[number, image], goal.mean(axis=0), atol=1e-12)
            np.testing.assert_allclose(
                e.h[number, image], vit.forward_features(pixels)[0].mean(dim=0).detach(), atol=1e-12
            )
            known = predictor.input(tokens) + places(32)[seen]
            found = e.p[number, image].unflatten(0, (4, -1, 16))
            for block, patches in enumerate(drawn.targets[image]):
                asked = predictor.token + places(32)[patches]
                x = run(predictor.blocks, torch.cat([known, asked[None]], dim=1))
                p = predictor.output(predictor.norm(x[0, -len(patches) :])).detach()
                # timm's frequencies are in float32.
                np.testing.assert_allclose(found[block].detach(), p, atol=1e-6)
                apart = np.abs(p.numpy() - goal[patches])
                distances.append(np.where(apart < 1, apart**2 / 2, apart - 0.5).mean())
    loss = method.objective(e).value.detach()
    assert float(loss) == pytest.approx(np.mean(distances), rel=1e-6)


def test_a_prediction_never_sees_the_hidden_patches() -> None:
    """Other pixels there change the targets, and no prediction."""
    method, (view, _) = i_jepa(), make_views()
    options = method.options
    drawn = draw_blocks(
        KEY,
        np.arange(BATCH),
        GRID,
        blocks=options.blocks,
        target_scale=options.target_scale,
        target_aspect=options.target_aspect,
        context_scale=options.context_scale,
    )
    context = torch.from_numpy(drawn.context).view(BATCH, 1, 4, 4)
    is_seen = context.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    before, hidden, shown = (
        method.embed_in_step((each,), KEY, torch.arange(BATCH))
        for each in (view, torch.where(is_seen, view, 9.0), torch.where(is_seen, 9.0, view))
    )
    torch.testing.assert_close(hidden.p, before.p)
    assert hidden.t is not None
    assert before.t is not None
    assert before.p is not None
    assert shown.p is not None
    assert (hidden.t - before.t).abs().max() > 0.1
    assert (shown.p - before.p).abs().amax(dim=2).min() > 1e-4


def test_blocks_change_with_the_step() -> None:
    """The same images and weights have another loss at another step, and the same at the same."""
    method, losses = i_jepa(), []
    for seed in (0, 0, 1):
        loss, _ = compute_gradient(method, make_views(), torch.arange(BATCH), seed=seed)
        losses.append(float(loss.value.detach()))
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("norm_of_mean", [False, True])
def test_registers_and_norms_of_the_mean(norm_of_mean: bool) -> None:
    """As in timm's networks: all weights get a gradient, and the output is the network's own."""
    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=8,
        patch_size=2,
        embed_dim=16,
        depth=1,
        num_heads=2,
        reg_tokens=2,
        class_token=False,
        no_embed_class=True,
        global_pool="avg",
        fc_norm=norm_of_mean,
        num_classes=0,
    )
    method = IJEPA(vit, 16, Options(predictor_width=32, predictor_depth=1))
    _, e = compute_gradient(method, make_views(), torch.arange(BATCH))
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
    torch.testing.assert_close(e.h[0], vit(make_views()[0]))


@pytest.mark.parametrize(
    ("backbone", "told"), [(TinyBackbone, "is a TinyBackbone"), (of_class_tokens, "a class token")]
)
def test_other_networks_are_refused(backbone: Any, told: str) -> None:
    with pytest.raises(NonegError, match=rf"needs a vision transformer.*{told}.*--backbone vit_"):
        IJEPA(backbone(), 16, Options())
    with pytest.raises(NonegError, match=r"a multiple of 32.*not 40"):
        IJEPA(tiny_transformer(), 16, Options(predictor_width=40))


def test_the_decay_of_the_target_rises_linearly() -> None:
    method = i_jepa(tau=0.6)
    for progress, decay in ((0.0, 0.6), (0.25, 0.7), (1.0, 1.0)):
        with torch.no_grad():
            for online, target in zip(
                method.backbone.parameters(), method.target.parameters(), strict=True
            ):
                online.fill_(1.0)
                target.fill_(0.0)
        method.after_step(progress)
        for target in method.target.parameters():
            torch.testing.assert_close(target, torch.full_like(target, 1 - decay))


def test_targets_that_are_the_same_for_all_images_show_in_z() -> None:
    """They may still differ between places: so the mean over places is judged."""
    method, views = i_jepa(), make_views()
    assert normalized_std(method.embed(views).z[0]) > 0.1
    embedding = method.target.get_submodule("0.patch_embed.proj")
    nn.init.zeros_(embedding.weight)  # type: ignore[arg-type]
    e = method.embed(views)
    assert e.t is not None
    patches = e.t[0, 0].unflatten(0, (-1, 16))
    assert patches.std(dim=0).mean() > 0.1
    assert normalized_std(e.z[0]) < 1e-3


def test_learning_uses_the_image_and_not_only_the_places() -> None:
    """The control: after training, the targets of other images are predicted much worse."""
    method = i_jepa(tau=0.99)
    optimizer = torch.optim.AdamW(
        [each for each in method.parameters() if each.requires_grad], lr=5e-3
    )

    def views(seed: int) -> tuple[Tensor, ...]:
        """Images of one color each, and a little noise."""
        generator = torch.Generator().manual_seed(seed)
        colors = torch.randn(16, 3, 1, 1, generator=generator)
        return (colors + 0.1 * torch.randn(16, 3, 8, 8, generator=generator),)

    def own_and_others() -> tuple[float, float]:
        with torch.no_grad():
            e = method.embed(views(10**6))
        assert e.p is not None
        assert e.t is not None
        own, others = (
            float(method.objective(type(e)(h=e.h, z=e.z, p=e.p, t=each)).value)
            for each in (e.t, e.t.roll(1, dims=1))
        )
        return own, others

    before, shuffled_before = own_and_others()
    assert before > 0.95 * shuffled_before
    for number in range(60):
        optimizer.zero_grad()
        compute_gradient(method, views(number), torch.arange(16), seed=number)
        optimizer.step()
        method.after_step((number + 1) / 60)
    after, shuffled_after = own_and_others()
    assert after < 0.5 * before
    assert after < 0.6 * shuffled_after


def test_the_recipes_have_crops_alone() -> None:
    for name in ("paper", "small", "adapt"):
        recipe = find_method("i_jepa").recipe(name)
        assert recipe.views == "crops"
        assert recipe.optimizer == "adamw"
