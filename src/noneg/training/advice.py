"""What would probably be better than what was asked for."""

from noneg.images import ImageSource
from noneg.training.plan import Plan

PHOTOGRAPHS = 64
"""Images whose short side has more pixels than this may be photographs."""

RECOMMENDED = "timm:tf_efficientnet_lite0"
"""Small enough for a CPU, and what docs/should-you-train.md measured."""


def advise_known_weights(plan: Plan, source: ImageSource) -> str | None:
    """A sentence for runs on color photographs that begin with random weights; else None."""
    config = plan.config
    begins = config.start is not None or config.continue_from is not None
    learns_from_teacher = getattr(config.options, "teacher", None) is not None
    if begins or learns_from_teacher or plan.channels != 3:
        return None
    if source.natural_size() <= PHOTOGRAPHS:
        return None
    data = "DATA" if config.data.startswith("<") else config.data
    return (
        "if these are photographs, known weights are probably better than random ones (on 2,240 "
        "aerial ones, nearest neighbors were right in 90.2% of cases without any training, 91.8% "
        "after 8 minutes of it, and 90.3% after 8 minutes from scratch): "
        f"noneg train {data} --start {RECOMMENDED}"
    )
