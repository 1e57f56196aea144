"""Which of some gallery boxes are a right answer to which query, before anything is ranked."""

from __future__ import annotations

import numpy as np

from harness.scoring.hearing import MIN_IOU
from harness.scoring.overlap import common_codes, iou, join
from harness.scoring.truth import Gallery, Queries, refuse_unanswerable
from harness.types import Floats, Ints


def right_boxes(queries: Queries, gallery: Gallery, image_ids: Ints, boxes_xyxy: Floats) -> tuple[Ints, Ints]:
    """Every pair of a query and a box that answers it by the official rules: the box overlaps, with an IoU of at least
    0.5, an annotated shop item of its photo that has the query's pair and style.

    Args:
        queries: all annotated consumer items.
        gallery: all annotated shop items.
        image_ids: (G,) int64, photos of the boxes that are searched.
        boxes_xyxy: (G, 4) float64, pixels.

    Returns:
        (pairs,) int64 numbers 0 … Q - 1 of the queries of style > 0, and (pairs,) int64 boxes; each pair once, ordered
        by query, then by box.

    Raises:
        InputError: queries and gallery do not belong together; see `refuse_unanswerable`.
    """
    refuse_unanswerable(queries, gallery)
    asked = queries.asked_rows
    asked_keys, item_keys = common_codes(
        (queries.pair_ids[asked], queries.styles[asked]), (gallery.pair_ids, gallery.styles)
    )
    items, boxes = join(gallery.image_ids, image_ids)
    near = iou(boxes_xyxy[boxes], gallery.boxes_xyxy[items]) >= MIN_IOU
    answers = np.unique(np.stack([item_keys[items[near]], boxes[near]], axis=1), axis=0)
    numbers, found = join(asked_keys, answers[:, 0])
    return numbers, answers[found, 1]
