"""The layers of a backbone in order: which of two parameters is nearer to the images?"""

from torch import nn

from noneg.networks.norms import batch_norms


def layer_numbers(backbone: nn.Module, *, stages: bool = False) -> dict[str, int]:
    """The number of the layer of each parameter, 0 for the first one.

    timm's networks say which parameters belong together: blocks, or with `stages` the stem and the
    stages of equal resolution (transformers: blocks). In other networks a layer is what shares a
    submodule, a convolution and its norm for example, in the order of registration.

    Args:
        backbone: the network.
        stages: whether to count in larger parts.
    """
    matcher = getattr(backbone, "group_matcher", None)
    if callable(matcher):
        from timm.models import group_parameters

        return dict(group_parameters(backbone, matcher(coarse=stages), reverse=True))
    numbers: dict[str, int] = {}
    found: dict[str, int] = {}
    for name, _ in backbone.named_parameters():
        module = name.rpartition(".")[0]
        part = module.partition(".")[0] if stages else module.rpartition(".")[0] or module
        numbers[name] = found.setdefault(part, len(found))
    return numbers


def freeze_stages(backbone: nn.Module, count: int) -> int:
    """Exclude the first stages from training, and return the number of all stages.

    Args:
        backbone: the network.
        count: of stages; all of them at most.
    """
    numbers = layer_numbers(backbone, stages=True)
    for name, parameter in backbone.named_parameters():
        if numbers[name] < count:
            parameter.requires_grad_(False)
    return max(numbers.values(), default=-1) + 1


def freeze_statistics_of_frozen_layers(backbone: nn.Module) -> None:
    """BatchNorm whose weights are not trained uses its running statistics, until `.train()`."""
    for norm in batch_norms(backbone):
        if norm.weight is not None and not norm.weight.requires_grad:
            norm.training = False
