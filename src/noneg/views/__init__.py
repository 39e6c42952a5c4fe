"""From uint8 images to random float views, a batch at a time; parameters differ per image."""

from noneg.views.policy import POLICIES, Policy, View
from noneg.views.render import draw_views, view_sizes

__all__ = ["POLICIES", "Policy", "View", "draw_views", "view_sizes"]
