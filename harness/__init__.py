"""From photos to a DeepFashion2 clothes-retrieval submission: detect, fuse, crop, embed, search, score."""

__version__ = "0.1.0"
