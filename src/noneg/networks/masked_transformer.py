"""A vision transformer that sees only some patches of an image, and a predictor of the others."""

from typing import final

import torch
from jaxtyping import Bool, Float, Int
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer, init_weights_vit_timm
from torch import Tensor, nn

from noneg.errors import NonegError

_HEAD = 32
"""Width of each attention head of the predictor: that of the authors' ViT-B."""


def check_transformer(backbone: nn.Module, method: str) -> None:
    """Check that the backbone is a vision transformer whose output is the mean of its patches.

    The class token of others would never be trained.

    Args:
        backbone: any network.
        method: name of the method that needs it.

    Raises:
        NonegError: it is not one.
    """
    is_transformer = isinstance(backbone, VisionTransformer)
    if is_transformer and backbone.global_pool == "avg":
        return
    what = "returns a class token" if is_transformer else f"is a {type(backbone).__name__}"
    raise NonegError(
        f"{method} needs a vision transformer that returns the mean of its patches, but this "
        f"backbone {what}: choose --backbone vit_wee_patch16_reg1_gap_256, another one of "
        "`noneg list backbones 'vit*gap*'` without rope and relpos, or a network of your own"
    )


def grid_of(network: nn.Module, images: Float[Tensor, "batch _ _ _"]) -> tuple[int, int]:
    """Rows and columns of the patches of these images.

    Args:
        network: a vision transformer, or a module that holds one.
        images: [batch, channels, side, side].
    """
    embedding = _transformer_in(network).patch_embed
    rows, columns = embedding.dynamic_feat_size(tuple(images.shape[-2:]))
    return int(rows), int(columns)


def patch_tokens(
    network: nn.Module,
    images: Float[Tensor, "batch _ _ _"],
    seen: Int[Tensor, "batch seen"] | None = None,
    is_seen: Bool[Tensor, "batch seen"] | None = None,
) -> Float[Tensor, "batch patches width"]:
    """The normalized output of the last layer for each patch, instead of their mean.

    Args:
        network: a vision transformer, or a module that holds one.
        images: [batch, channels, side, side].
        seen: the only patches that enter the first layer; by default, all.
        is_seen: which of these are patches, and which are padding that nothing attends to.
    """
    transformer = _transformer_in(network)
    prefix = transformer.num_prefix_tokens
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        outputs.append(output)

    def drop(_module: nn.Module, _inputs: object, tokens: Tensor) -> Tensor:
        if seen is None:
            return tokens
        return _join(tokens[:, :prefix], take_tokens(tokens[:, prefix:], seen))

    # Prefix tokens, such as registers, are always seen.
    mask = {} if is_seen is None else {"attn_mask": _attention_mask(is_seen, before=prefix)}
    handles = [
        transformer.patch_drop.register_forward_hook(drop),
        transformer.norm.register_forward_hook(keep),
    ]
    try:
        # The network is called as a whole, because sharded training gathers its weights then.
        network(images, **mask)
    finally:
        for handle in handles:
            handle.remove()
    # Some of timm's networks normalize the mean of the patches, and not each patch.
    tokens: Tensor = transformer.fc_norm(outputs[0][:, prefix:])
    return tokens


@final
class PatchPredictor(nn.Module):
    """A narrow transformer: from the patches that are seen, the encoder's output for others.

    I-JEPA, 2301.08243, section 3 and appendix A: each block is predicted by itself, from one token
    that is learned and the places of its patches.
    """

    def __init__(self, width: int, hidden: int, depth: int) -> None:
        """Random weights, as timm initializes transformers.

        Args:
            width: of the encoder's output.
            hidden: width of the layers, a multiple of 32.
            depth: number of layers.

        Raises:
            NonegError: the hidden width is not a multiple of 32.
        """
        super().__init__()
        if hidden < 1 or hidden % _HEAD:
            raise NonegError(
                f"the width of the predictor is a multiple of {_HEAD}, the width of its attention "
                f"heads, not {hidden}"
            )
        self.hidden = hidden
        self.input = nn.Linear(width, hidden)
        self.blocks = nn.ModuleList(
            Block(hidden, hidden // _HEAD, qkv_bias=True) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(hidden)
        self.output = nn.Linear(hidden, width)
        self.apply(init_weights_vit_timm)
        self.token = nn.Parameter(nn.init.trunc_normal_(torch.empty(hidden), std=0.02))

    def forward(
        self,
        tokens: Float[Tensor, "batch seen width"],
        seen: Int[Tensor, "batch seen"],
        is_seen: Bool[Tensor, "batch seen"],
        targets: Int[Tensor, "batch blocks patches"],
        grid: tuple[int, int],
    ) -> Float[Tensor, "batch blocks patches width"]:
        """Predict the patches of each block.

        Args:
            tokens: the encoder's output for the patches that are seen.
            seen: which patches these are.
            is_seen: which of them are patches, and which are padding.
            targets: the patches of each block.
            grid: rows and columns of all patches.
        """
        count, patches = targets.shape[1:]
        places = build_sincos2d_pos_embed(list(grid), self.hidden, device=tokens.device)
        places = places.to(self.token.dtype)
        known = self.input(tokens) + places[seen]
        asked = self.token + places[targets.flatten(0, 1)]
        # Every block is a row of its own, with all that is seen.
        x = _join(known.repeat_interleave(count, dim=0), asked)
        mask = _attention_mask(is_seen, after=patches).repeat_interleave(count, dim=0)
        for block in self.blocks:
            x = block(x, attn_mask=mask)
        predicted: Tensor = self.output(self.norm(x[:, -patches:]))
        return predicted.reshape(-1, count, *predicted.shape[1:])


def _transformer_in(network: nn.Module) -> VisionTransformer:
    return next(each for each in network.modules() if isinstance(each, VisionTransformer))


def take_tokens(
    tokens: Float[Tensor, "batch patches width"], chosen: Int[Tensor, "batch chosen"]
) -> Float[Tensor, "batch chosen width"]:
    """The tokens of each image that are chosen, in the order of their numbers in `chosen`."""
    return tokens.gather(1, chosen[..., None].expand(-1, -1, tokens.shape[-1]))


def _join(
    first: Float[Tensor, "batch _ width"], second: Float[Tensor, "batch _ width"]
) -> Float[Tensor, "batch _ width"]:
    return torch.cat([first, second], dim=1)


def _attention_mask(
    is_seen: Bool[Tensor, "batch seen"], *, before: int = 0, after: int = 0
) -> Bool[Tensor, "batch 1 1 keys"]:
    """What every token attends to, with other tokens before and after the patches."""
    return nn.functional.pad(is_seen, (before, after), value=True)[:, None, None]
