"""What kind of method a module holds, as `noneg list methods` shows it. Free of torch."""

from dataclasses import dataclass
from typing import Literal, final

Family = Literal[
    "online-target",
    "decorrelation",
    "distribution matching",
    "clustering",
    "contrastive",
    "distillation",
    "control",
]


@final
@dataclass(frozen=True)
class Traits:
    """A module's `TRAITS`.

    Args:
        family: what keeps embeddings apart. "online-target": predicting a target without gradient;
            "decorrelation": different coordinates, or directions, that do not repeat one another;
            "distribution matching": a given distribution of the embeddings; "clustering": clusters
            that all have to be used; "contrastive": negatives; "distillation": a frozen teacher;
            "control": nothing.
        predictor: whether views are compared through a predictor.
        teacher: whether a second network, without gradient, makes the targets.
        more_views: whether it is meant for more than two views.
        large_batch: whether its paper needs a large batch; the module's docstring says where.
    """

    family: Family
    predictor: bool = False
    teacher: bool = False
    more_views: bool = False
    large_batch: bool = False

    def __str__(self) -> str:
        """The family, and what the method needs besides one network and two views."""
        needs = {
            "predictor": self.predictor,
            "teacher": self.teacher,
            "more views": self.more_views,
            "large batch": self.large_batch,
        }
        return ", ".join([self.family, *(name for name, needed in needs.items() if needed)])
