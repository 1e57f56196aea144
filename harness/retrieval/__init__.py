"""Crops to embeddings: the retrieval models m0–m17 and their training."""
