"""Label-free meters: pure functions of embeddings."""

from noneg.diagnostics.meters import effective_rank, normalized_std

__all__ = ["effective_rank", "normalized_std"]
