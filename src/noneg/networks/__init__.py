"""Backbones, heads, norms and target networks."""
