"""From uint8 images to random float views, a batch at a time; parameters differ per image."""

from typing import TYPE_CHECKING, Any

from noneg.views.policy import POLICIES, Policy, View

if TYPE_CHECKING:
    from noneg.views.render import describe_sizes, draw_views, view_sizes

__all__ = ["POLICIES", "Policy", "View", "describe_sizes", "draw_views", "view_sizes"]


def __getattr__(name: str) -> Any:
    # A policy is plain data; only rendering needs torch.
    if name not in ("describe_sizes", "draw_views", "view_sizes"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import noneg.views.render

    return getattr(noneg.views.render, name)
