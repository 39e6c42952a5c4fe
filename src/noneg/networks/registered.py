"""noneg's own networks under names of timm's, so that timm builds them: import this module first.

`import noneg.networks.registered`, then `timm.create_model("local-dir:FOLDER", pretrained=True)`.
"""

import sys
from typing import Any

import torch
from timm.models import register_model
from torch import Tensor, nn

from noneg.networks.backbones import REGISTERED, SMALL, SMALL_RESNET, build_backbone

SMALL_STEMS = ("resnet18", "resnet34", "resnet50", "resnet101")
"""Networks of timm's that noneg builds with a small stem for images of up to 64 pixels."""


class WithHead(nn.Module):
    """One of noneg's backbones with the parts that timm expects of a network.

    Args:
        backbone: float [B, C, S, S] -> [B, D].
        num_classes: of the linear layer behind it; 0 for none.
        settings: timm's description of the network.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, settings: dict[str, Any]) -> None:
        """Put a linear layer behind the backbone."""
        super().__init__()
        width = backbone.num_features
        assert isinstance(width, int)
        self.backbone = backbone
        self.num_features = self.head_hidden_size = width
        self.num_classes = num_classes
        self.pretrained_cfg = self.default_cfg = settings
        self.fc = nn.Linear(width, num_classes) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """The linear layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Another linear layer, with random weights."""
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, images: Tensor) -> Tensor:
        """Features [B, D]; noneg's backbones average over places themselves."""
        features: Tensor = self.backbone(images)
        return features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Classes [B, num_classes], or the features."""
        classes: Tensor = features if pre_logits else self.fc(features)
        return classes

    def forward(self, images: Tensor) -> Tensor:
        """Both."""
        return self.forward_head(self.forward_features(images))


def registered_name(backbone: str, size: int) -> str | None:
    """The name under which timm builds a backbone that it does not have itself.

    Args:
        backbone: a name that `build_backbone` takes.
        size: side of the images in pixels.

    Returns:
        None if there is none.
    """
    if backbone in (SMALL, SMALL_RESNET):
        return REGISTERED + backbone
    name = backbone.partition(".")[0]
    return f"{REGISTERED}{name}_small_stem" if name in SMALL_STEMS and size <= 64 else None


def _register(name: str, backbone: str, size: int) -> None:
    def make(pretrained: bool = False, **settings: Any) -> nn.Module:
        from timm.models import build_model_with_cfg

        def build(in_chans: int = 3, num_classes: int = 1000, **_: Any) -> nn.Module:
            with torch.random.fork_rng(devices=[]):
                network = build_backbone(backbone, channels=in_chans, size=size)
            return WithHead(network, num_classes, {})

        found: nn.Module = build_model_with_cfg(build, name, pretrained, **settings)
        return found

    make.__name__ = make.__qualname__ = name
    make.__module__ = __name__
    # timm looks for a network's description here, beside its function.
    default_cfgs[name] = {
        "input_size": (3, size, size),
        "pool_size": None,
        "first_conv": None,
        "classifier": "fc",
        "num_classes": 0,
    }
    setattr(sys.modules[__name__], name, register_model(make))


default_cfgs: dict[str, dict[str, Any]] = {}
for _name in (SMALL, SMALL_RESNET):
    _register(REGISTERED + _name, _name, 32)
for _name in SMALL_STEMS:
    _register(f"{REGISTERED}{_name}_small_stem", _name, 32)
