"""All label-free meters of a trained network, and of the same network before its training."""

from torch import nn

from noneg.encoder import Encoder, EncoderInfo
from noneg.evaluation.label_free import (
    EmbedByName,
    embed_with,
    embed_with_backbone,
    measure_embeddings,
)
from noneg.evaluation.scores import untrained
from noneg.images import Images
from noneg.methods.base import Method
from noneg.networks.norms import copy_statistics
from noneg.records.contents import Meters
from noneg.training.build import build_method
from noneg.training.plan import Plan
from noneg.views import POLICIES, Policy


def measure_trained_and_untrained(
    network: Method | Encoder,
    info: EncoderInfo,
    images: Images,
    plan: Plan | None,
    *,
    most: int | None = None,
) -> tuple[Meters, Meters]:
    """Measure both in evaluation mode, on the same views of the same images.

    Args:
        network: trained; a method has `h` and `z`, an encoder has `h`.
        info: of its encoder.
        images: to measure on.
        plan: of the run, for its views and its seed; None if only the encoder is left. Then the
            views are the "gentle" ones and the seed is 0.
        most: images; by default `noneg.evaluation.label_free.images_to_measure`.

    Returns:
        The meters of the trained and of the untrained network, by embedding and name.
    """
    seed = 0 if plan is None else plan.config.seed
    policy: Policy = POLICIES["gentle"](info.size) if plan is None else plan.policy
    modules: list[tuple[nn.Module, EmbedByName]]
    if isinstance(network, Encoder):
        backbones = [network.module, untrained(network, seed=seed).module]
        modules = [(each, embed_with_backbone(each)) for each in backbones]
    else:
        assert plan is not None
        modules = [(each, embed_with(each)) for each in (network, untrained_method(network, plan))]
    trained, start = (
        measure_embeddings(
            module,
            embed,
            images,
            policy,
            size=info.size,
            mean=info.mean,
            std=info.std,
            seed=seed,
            most=most,
        )
        for module, embed in modules
    )
    return trained, start


def untrained_method(trained: Method, plan: Plan) -> Method:
    """The method as the run began with it, on the device of `trained`.

    Frozen BatchNorm keeps the statistics that were measured before the first step, so those of the
    trained network are those of the untrained one.
    """
    start = build_method(plan)
    if plan.config.norm == "frozen":
        copy_statistics(trained, start)
    return start.to(next(trained.parameters()).device)
