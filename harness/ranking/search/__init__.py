"""Exact search by inner product, over any number of models."""

from harness.ranking.search.exhaustive import Neighbours, nearest, neighbours, similarities_of, working_bytes
from harness.ranking.search.planning import SearchOptions

__all__ = ["Neighbours", "SearchOptions", "nearest", "neighbours", "similarities_of", "working_bytes"]
