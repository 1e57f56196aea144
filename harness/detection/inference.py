"""A trained detector: photos in, boxes in their pixels out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.cards import WEIGHTS_FILE, read_trained
from harness.detection.card import DetectorCard
from harness.types import Detections, Floats, Ints, Progress, Split

if TYPE_CHECKING:
    from harness.detection.bridge import Network


@dataclass(frozen=True, eq=False)
class PhotoBoxes:
    """What was found in one photo, by descending score.

    Attributes:
        boxes_xyxy: (N, 4) float64, pixels of the photo, inside it, of positive area.
        scores: (N,) float64 in [0, 1].
        category_ids: (N,) int64 in 1–13.
    """

    boxes_xyxy: Floats
    scores: Floats
    category_ids: Ints


class Detector:
    """A trained detector, ready to look at photos.

    Attributes:
        card: what it is.
    """

    def __init__(self, card: DetectorCard, network: Network) -> None:
        self.card = card
        self._network = network.eval()

    @classmethod
    def load(cls, model_dir: Path, device: str | None = None) -> Detector:
        """The detector of a folder that `harness.detection.training.train` finished.

        Args:
            model_dir: the folder.
            device: torch's name of a device; None takes a GPU where there is one.

        Raises:
            InputError: the folder has no finished detector, or its weights are not those of the card.
        """
        import torch

        from harness.detection.bridge import Network

        card = read_trained(model_dir, DetectorCard)
        network = Network(card.recipe.config, card.recipe.model)
        network.model.load_state_dict(torch.load(model_dir / WEIGHTS_FILE, map_location="cpu", weights_only=True))
        network.only_boxes()
        network.limit(card.recipe.score_threshold, card.recipe.max_per_image)
        return cls(card, network.to(device or ("cuda" if torch.cuda.is_available() else "cpu")))

    def predict(self, photos: Sequence[NDArray[np.uint8]]) -> list[PhotoBoxes]:
        """The garments in each photo.

        Every photo is laid into an input whose size depends on it alone, so its neighbours in the
        batch do not change what is found (but for rounding: kernels may differ by batch size).

        Args:
            photos: (H, W, 3) uint8 RGB each, of any sizes.
        """
        from harness.detection import placement

        input_px = self.card.recipe.input_px
        found: list[PhotoBoxes | None] = [None] * len(photos)
        by_canvas: dict[tuple[int, int], list[int]] = {}
        for row, photo in enumerate(photos):
            if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
                raise ValueError(f"photo {row}: expected uint8 of shape (H, W, 3), got {photo.dtype} {photo.shape}")
            fitted_wh = placement.fitted_size_wh((photo.shape[1], photo.shape[0]), input_px)
            by_canvas.setdefault(placement.canvas_hw(fitted_wh, input_px), []).append(row)
        for rows in by_canvas.values():
            for row, boxes in zip(rows, self._predict_alike([photos[row] for row in rows]), strict=True):
                found[row] = boxes
        return [boxes for boxes in found if boxes is not None]

    def _predict_alike(self, photos: Sequence[NDArray[np.uint8]]) -> list[PhotoBoxes]:
        """`predict` for photos that share a canvas."""
        import torch

        from harness.detection import placement

        input_px = self.card.recipe.input_px
        fitted = [placement.resized(photo, input_px) for photo in photos]
        laid = np.stack([placement.laid_plain(photo, input_px, self._network.padding_rgb) for photo in fitted])
        batch = torch.from_numpy(laid).to(next(self._network.parameters()).device)
        shapes = [(photo.shape[0], photo.shape[1]) for photo in fitted]
        results = []
        for photo, (height, width), one in zip(photos, shapes, self._network.predict(batch, shapes), strict=True):
            sides = np.array([photo.shape[1], photo.shape[0]] * 2, np.float64)
            boxes = one.boxes_xyxy.cpu().numpy().astype(np.float64) * (sides / np.array([width, height] * 2))
            boxes = np.clip(boxes, 0, sides)
            scores = np.clip(one.scores.cpu().numpy().astype(np.float64), 0, 1)
            # mmdet applies the threshold before ATSS multiplies its scores by the centredness.
            good_enough = scores >= self.card.recipe.score_threshold
            whole = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) & good_enough)
            order = whole[np.argsort(-scores[whole], kind="stable")]
            results.append(PhotoBoxes(boxes[order], scores[order], one.category_ids.cpu().numpy()[order]))
        return results


def detect(
    detector: Detector,
    split: Split,
    image_ids: Ints,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Detections:
    """The garments in photos of a split.

    Args:
        detector: who looks.
        split: where the photos are; annotations are not needed.
        image_ids: (P,) which of them.
        batch_size: photos at once; None takes the recipe's.
        progress: told of photos done and photos in all.

    Returns:
        Boxes in the order of ``image_ids``, within a photo by descending score.

    Raises:
        InputError: a photo is missing or damaged.
    """
    from harness.data.photos import decode_rgb

    ids = np.asarray(image_ids, np.int64)
    size = batch_size or detector.card.recipe.detect_batch_size
    parts = []
    for start in range(0, len(ids), size):
        some = ids[start : start + size]
        photos = [decode_rgb(split.photo_path(int(image_id))) for image_id in some]
        for image_id, found in zip(some, detector.predict(photos), strict=True):
            owner = np.full(len(found.scores), image_id, np.int64)
            parts.append(Detections(owner, found.boxes_xyxy, found.scores, found.category_ids))
        if progress is not None:
            progress(min(start + size, len(ids)), len(ids))
    return Detections.concatenate(parts)
