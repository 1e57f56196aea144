"""Re-ranking by k-reciprocal neighbours."""

from harness.ranking.reranking.reciprocal import k_reciprocal

__all__ = ["k_reciprocal"]
