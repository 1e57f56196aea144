"""What a set of boxes is worth: box AP50, or the accuracy of retrieval models that search with it.

An objective is asked for hundreds of box sets of the same photos. Only what can change the accuracy
is embedded: the boxes that speak for a query, and all shop boxes; and no crop is embedded twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.data.crops import window
from harness.scoring.boxes import ap50
from harness.scoring.official import PROTOCOL, evaluate, speaking_rows
from harness.scoring.results import Results
from harness.scoring.truth import refuse_unanswerable, truth_from_items
from harness.types import GALLERY_LENGTH, Detections, Ints, Items, Ranking, Score, Split

if TYPE_CHECKING:
    from harness.retrieval.embedding import Embedder

_MOST_CROPS = 1_000_000
"""Features that are kept for the next box set; beyond that they are embedded anew."""


class Objective(Protocol):
    """Worth of a set of boxes on fixed photos."""

    @property
    def name(self) -> str:
        """What is measured, for people."""

    def __call__(self, boxes: Detections) -> float:
        """The worth in [0, 1]; higher is better."""


class BoxPrecision:
    """Box AP50.

    Args:
        truth: the annotated items of the photos.
        image_ids: (P,) the photos, those without an item included.
    """

    name = "AP50"

    def __init__(self, truth: Items, image_ids: Ints) -> None:
        self._truth, self._image_ids = truth, image_ids

    def __call__(self, boxes: Detections) -> float:
        """AP50 of the boxes; those of other photos do not count."""
        return ap50(self._truth, boxes, self._image_ids)


class RetrievalAccuracy:
    """Official Acc@10 of retrieval models that search with the boxes.

    Args:
        name: of the ensemble, for people.
        items: the annotated items of the photos: queries and gallery.
        features: one (N, D) array a model for N boxes, such as `CropFeatures` gives.
        weights: one a model.

    Raises:
        InputError: the photos have no query.
    """

    def __init__(
        self,
        name: str,
        items: Items,
        features: Callable[[Detections], Sequence[NDArray[np.float16]]],
        weights: Sequence[float],
    ) -> None:
        self.name = f"Acc@10 of {name}"
        self._queries, self._gallery = truth_from_items(items)
        self._features, self._weights = features, weights
        self._shop_photos = np.unique(items.image_ids[~items.is_consumer])
        self._photos = np.unique(items.image_ids)
        refuse_unanswerable(self._queries, self._gallery)

    def __call__(self, boxes: Detections) -> float:
        """Acc@10 with these boxes as queries and gallery; those of other photos do not count."""
        return self.score(boxes).acc[10]

    def score(self, boxes: Detections) -> Score:
        """The official score with these boxes as queries and gallery.

        With fewer than 20 boxes in shop photos nothing can be handed in: then no query has a hit.
        """
        from harness.ranking.search import nearest

        boxes = boxes.take(np.isin(boxes.image_ids, self._photos))
        speaking = speaking_rows(boxes.image_ids, boxes.boxes_xyxy, boxes.scores, boxes.category_ids, self._queries)
        asking = np.unique(speaking[speaking >= 0])
        answering = np.flatnonzero(np.isin(boxes.image_ids, self._shop_photos))
        if len(answering) < GALLERY_LENGTH:
            return Score(PROTOCOL, len(speaking), np.zeros(len(speaking), np.int64))
        features = self._features(boxes.take(np.concatenate([asking, answering])))
        ids, similarities = nearest(
            [vectors[: len(asking)] for vectors in features],
            [vectors[len(asking) :] for vectors in features],
            GALLERY_LENGTH,
            self._weights,
        )
        ranking = Ranking(asking, answering[ids], similarities)
        return evaluate(Results.from_ranking(ranking, boxes), self._queries, self._gallery)


class CropFeatures:
    """The features of boxes, every crop embedded once however often it is asked for.

    Args:
        embedders: the models.
        split: where the photos are.
        sizes_wh: width and height in pixels of every photo that may have a box.
    """

    def __init__(self, embedders: Sequence[Embedder], split: Split, sizes_wh: Mapping[int, tuple[int, int]]) -> None:
        self._embedders, self._split, self._sizes_wh = embedders, split, sizes_wh
        self._rows: dict[float, dict[tuple[int, ...], int]] = {one.margin: {} for one in embedders}
        self._vectors = {one.name: np.empty((0, one.dimensions), np.float16) for one in embedders}

    def __call__(self, boxes: Detections) -> list[NDArray[np.float16]]:
        """One (N, D) a model, as `harness.retrieval.embedding.embed` gives them."""
        rows = {margin: self._rows_of(boxes, margin) for margin in self._rows}
        return [self._vectors[one.name][rows[one.margin]] for one in self._embedders]

    def _rows_of(self, boxes: Detections, margin: float) -> Ints:
        """Where the features of boxes are, for the models of a margin; missing ones are embedded."""
        from harness.retrieval.embedding import embed

        models = [one for one in self._embedders if one.margin == margin]
        windows = [
            (image_id, *window(box, self._sizes_wh[image_id], margin))
            for image_id, box in zip(boxes.image_ids.tolist(), boxes.boxes_xyxy.tolist(), strict=True)
        ]
        known = self._rows[margin]
        if len(known) + len(windows) > _MOST_CROPS:
            known.clear()
            for one in models:
                self._vectors[one.name] = self._vectors[one.name][:0]
        missing = []
        for row, key in enumerate(windows):
            if key not in known:
                known[key] = len(known)
                missing.append(row)
        if missing:
            found = embed(models, self._split, boxes.take(np.array(missing)))
            for one in models:
                self._vectors[one.name] = np.concatenate([self._vectors[one.name], found[one.name]])
        return np.fromiter((known[key] for key in windows), np.int64, len(windows))
