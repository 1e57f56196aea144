"""Embeddings to rankings: exact search over any number of models."""
