"""Weighted boxes fusion (Solovyev et al. 2021): the boxes of several detectors become one set.

Fusion is done on boxes in units of the photo (``boxes_unit``, 0–1); pixels are converted in
`fuse`, nowhere else. Legend: M detectors, N boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from queue import SimpleQueue
from typing import Any, get_args

import numpy as np

from harness.detection.fusion_settings import ConfidenceType, check_weights
from harness.detection.fusion_settings import FusionSettings as FusionSettings
from harness.detection.piles import Groups, Pile, Space
from harness.types import Detections, Floats, Ints
from harness.workers import available_threads

_BLOCK = 1 << 15
"""Boxes that are worked on at once: their columns fit a processor's cache, and memory is used again."""

_OUTSIDE_PX = 1.0
"""A box may stick out of its photo by this much (rounding in others' result files) and is cut."""


def weighted_boxes_fusion(
    boxes_list: Sequence[Any],
    scores_list: Sequence[Any],
    labels_list: Sequence[Any],
    weights: Sequence[float] | None = None,
    iou_thr: float = 0.55,
    skip_box_thr: float = 0.0,
    conf_type: str = "avg",
    allows_overflow: bool = False,
) -> tuple[Floats, Floats, Floats]:
    """Fuse the boxes of several detectors in one photo, as the function of that name in ensemble-boxes does.

    Boxes of no area are left out. Where every box of a group has score 0, that package divides by zero; such a group
    is left out here. Labels stay exact up to 53 bits; that package rounds those of groups to 24.

    Args:
        boxes_list: M of (N, 4), units of the photo in [0, 1], x1 <= x2 and y1 <= y2.
        scores_list: M of (N,) in [0, 1].
        labels_list: M of (N,) whole numbers.
        weights: M numbers, not negative, not all 0; None weighs all alike.
        iou_thr: boxes of one label with a larger IoU become one.
        skip_box_thr: boxes of a lower score are left out.
        conf_type: ``avg``, ``max``, ``box_and_model_avg`` or ``absent_model_aware_avg``.
        allows_overflow: with ``avg``, let scores grow above 1 where a detector gives several boxes.

    Returns:
        boxes (N, 4), scores (N,) and labels (N,), all float64, by descending score.

    Raises:
        ValueError: input of another form; the message names the detector and the box.
    """
    if not len(boxes_list) == len(scores_list) == len(labels_list):
        raise ValueError(
            f"expected one list a detector of boxes, scores and labels, got {len(boxes_list)}, "
            f"{len(scores_list)} and {len(labels_list)}"
        )
    if conf_type not in get_args(ConfidenceType):
        raise ValueError(f"conf_type {conf_type!r}: expected one of {', '.join(get_args(ConfidenceType))}")
    for name, value in (("iou_thr", iou_thr), ("skip_box_thr", skip_box_thr)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: expected a number in [0, 1], got {value}")
    trust = np.ones(len(boxes_list)) if weights is None else np.asarray(weights, np.float64)
    check_weights(trust, len(boxes_list))
    given = [_columns(m, *lists) for m, lists in enumerate(zip(boxes_list, scores_list, labels_list, strict=True))]
    counts = np.array([len(one[1]) for one in given], np.int64)
    if counts.sum() == 0:
        return np.zeros((0, 4)), np.zeros(0), np.zeros(0)
    boxes, scores, labels = (np.concatenate(columns) for columns in zip(*given, strict=True))
    _refuse_faults(boxes, scores, labels, counts)
    pile = Pile(
        np.array([0, len(scores)]),
        boxes,
        scores,
        labels.astype(np.int64),
        np.repeat(np.arange(len(counts)), counts),
        trust,
    )
    groups = Groups.blank(len(scores), 1)
    pile.fuse(iou_thr, skip_box_thr, conf_type, allows_overflow, groups)
    size = int(groups.counts[0])
    order = groups.scores[:size].argsort()[::-1]  # what numpy makes of equal scores, as that package does
    order = order[np.isfinite(groups.boxes[order]).all(axis=1) & np.isfinite(groups.scores[order])]
    return groups.boxes[order], groups.scores[order], groups.labels[order].astype(np.float64)


def _suppress(pile: Pile, settings: FusionSettings, groups: Groups) -> None:
    """By one of the other methods of ensemble-boxes."""
    from ensemble_boxes import nms, non_maximum_weighted, soft_nms

    function = {"nms": nms, "soft_nms": soft_nms, "nmw": non_maximum_weighted}[settings.method]
    weights = None if settings.weights is None else pile.weights
    sides = pile.boxes[:, 2:] - pile.boxes[:, :2]
    # That package prints where it meets a box without area.
    takes_part = (pile.scores >= settings.skip_threshold) & (sides[:, 0] * sides[:, 1] > 0)
    for photo, (start, end) in enumerate(pairwise(pile.starts.tolist())):
        rows = start + np.flatnonzero(takes_part[start:end])
        if len(rows) == 0:
            continue
        parts = [rows[pile.models[rows] == model] for model in range(len(pile.weights))]
        lists = [[column[part] for part in parts] for column in (pile.boxes, pile.scores, pile.labels)]
        boxes, scores, labels = function(*lists, weights=weights, iou_thr=settings.iou_threshold)
        found = slice(start, start + len(scores))
        groups.boxes[found], groups.scores[found], groups.labels[found] = boxes, scores, labels
        groups.counts[photo] = len(scores)


def _columns(detector: int, boxes: Any, scores: Any, labels: Any) -> tuple[Floats, Floats, Floats]:
    where = f"detector {detector}"
    boxes_unit = np.asarray(boxes, np.float64)
    boxes_unit = boxes_unit.reshape(0, 4) if boxes_unit.size == 0 else boxes_unit
    if boxes_unit.ndim != 2 or boxes_unit.shape[1] != 4:
        raise ValueError(f"{where}: expected boxes of shape (N, 4), got {boxes_unit.shape}")
    columns = {"scores": np.asarray(scores, np.float64), "labels": np.asarray(labels, np.float64)}
    for name, column in columns.items():
        if column.shape != (len(boxes_unit),):
            raise ValueError(f"{where}: expected {len(boxes_unit)} {name}, one a box, got shape {column.shape}")
    return boxes_unit, columns["scores"], columns["labels"]


_FAULTS = {
    1: "is not finite",
    2: "is outside [0, 1] (divide pixels by the photo's width and height)",
    3: "is inverted (expected x1 y1 x2 y2)",
    4: "has a score outside [0, 1]",
    5: "has a label that is no whole number",
}


def _refuse_faults(boxes: Floats, scores: Floats, labels: Floats, counts: Ints) -> None:
    from harness.detection.wbf import first_fault

    row, fault = first_fault(boxes, scores, labels)
    if fault:
        ends = np.cumsum(counts)
        detector = int(np.searchsorted(ends, row, "right"))
        value = {4: scores, 5: labels}.get(fault, boxes)[row]
        box = row - (ends[detector] - counts[detector])
        raise ValueError(f"detector {detector}: box {box} {_FAULTS[fault]}: {np.asarray(value).tolist()}")


def fuse(
    detections: Sequence[Detections],
    sizes_wh: Mapping[int, tuple[int, int]],
    settings: FusionSettings,
    num_threads: int | None = None,
) -> Detections:
    """Make one box set of several detectors' over a whole split; ``wbf`` as `weighted_boxes_fusion` photo by photo.

    Args:
        detections: one a detector, in the order of ``settings.weights``.
        sizes_wh: width and height in pixels of every photo that has a box.
        settings: how.
        num_threads: at least 1; None for all cores that this process may use.

    Returns:
        The fused boxes by ascending image id, within a photo by descending score.

    Raises:
        ValueError: the number of weights or calibrations is not that of the detectors, a photo's size is missing or
            not above 0, a box sticks out of its photo by more than a pixel, or there is no thread.
    """
    from harness.detection.label_policies import keep_best_label
    from harness.detection.split_columns import best_first, gather, to_pixels

    if num_threads is not None and num_threads < 1:
        raise ValueError(f"num_threads: expected at least 1, got {num_threads}")
    weights = np.ones(len(detections)) if settings.weights is None else np.asarray(settings.weights, np.float64)
    check_weights(weights, len(detections))
    scores_of = _calibrated(detections, settings)
    members = [m for m, one in enumerate(detections) if weights[m] > 0 and len(one)]
    if not members:
        return Detections.concatenate([])
    image_ids = np.concatenate([detections[m].image_ids for m in members])
    order = np.argsort(image_ids, kind="stable")  # rows of a photo stay detector after detector
    ordered = image_ids[order]
    first_rows = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    photos, starts = ordered[first_rows], np.append(first_rows, len(ordered))
    sizes = _sizes(photos, sizes_wh, [detections[m] for m in members], members)
    offsets = np.cumsum([0, *(len(detections[m]) for m in members)])[:-1].tolist()
    numbers = (np.cumsum(weights > 0) - 1).tolist()
    used = weights[weights > 0]
    spaces: SimpleQueue[Space] = SimpleQueue()

    def fuse_block(first: int, end: int) -> Groups:
        rows, places = order[starts[first] : starts[end]], starts[first : end + 1] - starts[first]
        space = spaces.get()
        try:
            return fuse_rows(first, end, rows, places, space)
        finally:
            spaces.put(space)

    def fuse_rows(first: int, end: int, rows: Ints, places: Ints, space: Space) -> Groups:
        pile = space.pile(places, used)
        groups, kept, size = space.groups(pile), space.rows(pile), len(rows)
        here = sizes[first:end]
        for m, offset in zip(members, offsets, strict=True):
            one, columns = detections[m], (pile.boxes, pile.scores, pile.labels, pile.models)
            bad = gather(
                places, rows, offset, one.boxes_xyxy, scores_of[m], one.category_ids, numbers[m], here,
                _OUTSIDE_PX, *columns,
            )  # fmt: skip
            if bad >= 0:
                row, photo = int(rows[bad]) - offset, int(np.searchsorted(places, bad, "right")) - 1
                raise ValueError(
                    f"detector {m}: row {row}, image id {photos[first + photo]}: box {one.boxes_xyxy[row].tolist()} "
                    f"sticks out of the photo, which is {here[photo][0]:.0f} x {here[photo][1]:.0f} pixels"
                )
        if settings.label_policy == "vote":
            pile.vote(settings.iou_threshold, settings.skip_threshold, settings.conf_type, groups)
        elif settings.method == "wbf":
            pile.fuse(settings.iou_threshold, settings.skip_threshold, settings.conf_type, False, groups)
        else:
            _suppress(pile, settings, groups)
        limit = settings.max_per_image or size
        if settings.label_policy == "best":
            best_first(places, groups.counts, groups.boxes, groups.scores, groups.labels, size, kept)
            keep_best_label(places, groups.counts, kept, groups.boxes, groups.labels, settings.label_iou, limit)
        else:
            best_first(places, groups.counts, groups.boxes, groups.scores, groups.labels, limit, kept)
        ends = np.concatenate([[0], np.cumsum(groups.counts)])
        fused = Groups(np.empty((ends[-1], 4)), np.empty(ends[-1]), np.empty(ends[-1], np.int64), groups.counts)
        to_pixels(
            places,
            ends,
            kept,
            groups.boxes,
            groups.scores,
            groups.labels,
            here,
            fused.boxes,
            fused.scores,
            fused.labels,
        )
        return fused

    bounds = np.append(np.searchsorted(starts[:-1], np.arange(0, len(order), _BLOCK)), len(photos))
    bounds = bounds[np.concatenate([[True], bounds[1:] > bounds[:-1]])]
    num_workers = min(num_threads or available_threads(), len(bounds) - 1)
    for _ in range(num_workers):
        spaces.put(Space(int(np.diff(starts[bounds]).max())))
    with ThreadPoolExecutor(num_workers) as pool:  # compiled code does not hold the lock
        blocks = list(pool.map(fuse_block, bounds[:-1].tolist(), bounds[1:].tolist()))
    fused = (
        np.repeat(photos, np.concatenate([block.counts for block in blocks])),
        np.concatenate([block.boxes for block in blocks]),
        np.concatenate([block.scores for block in blocks]),
        np.concatenate([block.labels for block in blocks]),
    )
    for column in fused:
        column.setflags(write=False)  # then it is taken over without a copy
    return Detections(*fused)


def _calibrated(detections: Sequence[Detections], settings: FusionSettings) -> list[Floats]:
    """Each detector's scores, through its calibration where it has one."""
    maps = settings.calibrations
    if maps is None:
        return [one.scores for one in detections]
    if len(maps) != len(detections):
        raise ValueError(f"calibrations: expected one a detector, {len(detections)}, got {len(maps)}")
    scores = [
        one.scores if map_ is None else map_.apply(one.scores) for one, map_ in zip(detections, maps, strict=True)
    ]
    for column in scores:
        column.setflags(write=False)  # as columns of detections are: one compiled function serves both
    return scores


def _sizes(
    photos: Ints, sizes_wh: Mapping[int, tuple[int, int]], detections: Sequence[Detections], names: Sequence[int]
) -> Floats:
    """(P, 2) float64 width and height of each photo."""
    missing = [photo for photo in photos.tolist() if photo not in sizes_wh]
    if missing:
        detector = next(name for name, one in zip(names, detections, strict=True) if missing[0] in one.image_ids)
        raise ValueError(f"sizes_wh: there is no size for image id {missing[0]}, where detector {detector} has a box")
    sizes = np.array([sizes_wh[photo] for photo in photos.tolist()], np.float64).reshape(-1, 2)
    wrong = ~(np.isfinite(sizes) & (sizes > 0)).all(axis=1)
    if wrong.any():
        photo = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"sizes_wh: expected width and height above 0 for image id {photos[photo]}, got {sizes[photo].tolist()}"
        )
    return sizes
