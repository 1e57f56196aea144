"""A colour histogram as an embedding: untrained, and so a measure of how hard a data set is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class ColourHistogram:
    """Square root of the joint red-green-blue histogram of the middle of a crop.

    The inner product of two such embeddings is the Bhattacharyya coefficient of the histograms.

    Args:
        bins: per channel, 1–256; the embedding has bins³ dimensions.
        input_wh: width and height of the crops, px.

    Attributes:
        name: ``histogram``.
        dimensions: of an embedding.
        input_wh: as given.
        margin: 0; the crop is the box.
    """

    name = "histogram"
    margin = 0.0

    def __init__(self, bins: int = 8, input_wh: tuple[int, int] = (64, 64)) -> None:
        if not 1 <= bins <= 256:
            raise ValueError(f"bins: expected 1 to 256, got {bins}")
        self.bins = bins
        self.input_wh = input_wh
        self.dimensions = bins**3

    def embed(self, crops_BHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed crops.

        Args:
            crops_BHW3: (B, h, w, 3) uint8, red, green, blue.

        Returns:
            (B, dimensions) float32, each row of length 1. The outer eighth on each side is left out:
            it shows more background than garment.
        """
        batch, height, width = crops_BHW3.shape[:3]
        inner = crops_BHW3[:, height // 8 : height - height // 8, width // 8 : width - width // 8]
        binned = inner.reshape(batch, inner.shape[1] * inner.shape[2], 3).astype(np.int64) * self.bins // 256
        cells = (binned[..., 0] * self.bins + binned[..., 1]) * self.bins + binned[..., 2]
        cells += np.arange(batch)[:, None] * self.dimensions
        counts = np.bincount(cells.ravel(), minlength=batch * self.dimensions).reshape(batch, self.dimensions)
        roots: NDArray[np.float32] = np.sqrt(counts / cells.shape[1]).astype(np.float32)
        return roots
