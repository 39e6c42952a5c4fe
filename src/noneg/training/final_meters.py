"""All label-free meters of a trained network and of the same network untrained."""

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
from noneg.networks.patch_whitening import copy_whitening
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
        network: the trained network; a method has `h` and `z`, an encoder only `h`.
        info: describes its encoder.
        images: the images to measure on.
        plan: of the run, for its views and its seed; None if there is only the encoder. Then the
            views are "gentle" and the seed is 0.
        most: the most images; by default `noneg.evaluation.label_free.images_to_measure`.

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
    meters_trained, meters_untrained = (
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
    return meters_trained, meters_untrained


def measure_encoder(encoder: Encoder, images: Images, plan: Plan, most: int) -> Meters:
    """Measure `h` of an encoder on the views of `measure_trained_and_untrained`."""
    info = encoder.info
    return measure_embeddings(
        encoder.module,
        embed_with_backbone(encoder.module),
        images,
        plan.policy,
        size=info.size,
        mean=info.mean,
        std=info.std,
        seed=plan.config.seed,
        most=most,
    )


def untrained_method(trained: Method, plan: Plan) -> Method:
    """The method with the run's initial weights, on the device of `trained`.

    What was measured before the first step is copied from the trained network: the whitening of
    patches, and the statistics of frozen BatchNorm.
    """
    initial = build_method(plan)
    copy_whitening(trained, initial)
    if plan.config.norm == "frozen":
        copy_statistics(trained, initial)
    return initial.to(next(trained.parameters()).device)
