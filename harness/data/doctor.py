"""The doctor: counts a DeepFashion2 folder and lists everything that is wrong with it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from harness.data.annotations import Problem
from harness.data.deepfashion2 import parse_annotations
from harness.data.layout import (
    LAYOUT,
    OBTAIN,
    RELEASED_PHOTOS,
    RELEASED_VALIDATION_CONSUMER,
    consumer_mask_of_test,
    is_rendered,
    list_split,
    numbered_files,
    unpaired,
)
from harness.data.photos import decode_rgb
from harness.types import CATEGORIES, SPLITS, InputError, Ints, Items, Progress, SplitName

Decode = Literal["none", "sample", "all"]
SAMPLE_PHOTOS = 200
"""Photos a split that ``decode="sample"`` looks at, evenly spread over it."""

_CHUNK = 256


@dataclass(frozen=True)
class SplitReport:
    """What one split holds.

    Attributes:
        name: which split.
        num_photos, num_consumer, num_shop: photos; the latter two None if nothing tells them apart.
        num_decoded: photos that were decoded to look at them.
        num_items: garments with sound annotations; this and what follows is None without annotations.
        items_per_category: category name to garments, all 13.
        num_pairs: different pair ids.
        num_matched_consumer_items: consumer garments of style > 0 with a shop garment of the same pair
            and style: the queries that can be answered.
        num_unmatched_consumer_items: consumer garments of style > 0 without one.
        num_style_0_items: garments that take no part in matching.
    """

    name: SplitName
    num_photos: int
    num_consumer: int | None
    num_shop: int | None
    num_decoded: int
    num_items: int | None
    items_per_category: dict[str, int] | None
    num_pairs: int | None
    num_matched_consumer_items: int | None
    num_unmatched_consumer_items: int | None
    num_style_0_items: int | None


@dataclass(frozen=True)
class DoctorReport:
    """What a data set holds and what is wrong with it.

    Attributes:
        root: the folder.
        rendered: True if it says of itself that it was rendered.
        splits: a report for every split that is there.
        problems: everything wrong, those that forbid reading first within their split.
    """

    root: Path
    rendered: bool
    splits: tuple[SplitReport, ...]
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """True if every split that is there can be read."""
        return not any(problem.fatal for problem in self.problems)


def check(root: Path, *, decode: Decode = "none", progress: Progress | None = None) -> DoctorReport:
    """Everything that is wrong with a DeepFashion2 folder, not only the first.

    Args:
        root: the folder that holds ``train``, ``validation`` and ``test``.
        decode: which photos to decode: none, `SAMPLE_PHOTOS` a split, or all.
        progress: called with files done and in total, anew for each pass.

    Returns:
        counts and problems. A split that is not there, or has another size than the released one in a
        data set that is not rendered, is a problem that is not fatal.

    Raises:
        InputError: there is no such folder, or no split in it.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; {LAYOUT}; {OBTAIN}")
    if not any((root / name).is_dir() for name in SPLITS):
        raise InputError(f"{root}: holds none of {', '.join(SPLITS)}; {LAYOUT}; {OBTAIN}")
    rendered = any(is_rendered(root, name) for name in SPLITS)
    reports: list[SplitReport] = []
    problems: list[Problem] = []
    for name in SPLITS:
        if not (root / name).is_dir():
            problems.append(Problem(str(root / name), "no such folder: this split is not there", fatal=False))
            continue
        report, found = _check_split(root, name, rendered, decode, progress)
        problems += sorted(found, key=lambda problem: not problem.fatal)
        if report is not None:
            reports.append(report)
    return DoctorReport(root, rendered, tuple(reports), tuple(problems))


def _check_split(
    root: Path, name: SplitName, rendered: bool, decode: Decode, progress: Progress | None
) -> tuple[SplitReport | None, list[Problem]]:
    folder = root / name
    try:
        files = list_split(root, name)
    except InputError as error:
        return None, [Problem(str(folder), str(error))]
    problems = list(files.problems)
    for image_id in files.photo_ids[files.photo_bytes == 0].tolist():
        problems.append(Problem(str(folder / "image" / f"{image_id:06d}.jpg"), "is empty (0 bytes)"))
    if not rendered and len(files.photo_ids) != RELEASED_PHOTOS[name]:
        what = f"expected the {RELEASED_PHOTOS[name]:,} photos of the release, found {len(files.photo_ids):,}"
        problems.append(Problem(str(folder / "image"), what, fatal=False))
    items, num_consumer, num_shop = None, None, None
    if files.annotation_ids is None:
        try:
            num_consumer = int(consumer_mask_of_test(root, files.photo_ids).sum())
            num_shop = len(files.photo_ids) - num_consumer
        except InputError as error:
            problems.append(Problem(str(folder), str(error)))
        truth = root / f"{name}_truth" / "annos"
        if truth.is_dir():
            truth_ids, _, wrong = numbered_files(truth, ".json")
            problems += wrong + unpaired(folder / "image", files.photo_ids, truth, truth_ids)
            parsed = parse_annotations(truth, truth_ids, thorough=True, progress=progress)
            problems += parsed.problems
            items = parsed.items
    else:
        parsed = parse_annotations(folder / "annos", files.annotation_ids, thorough=True, progress=progress)
        problems += parsed.problems
        items = parsed.items
        num_consumer, num_shop = int((parsed.is_consumer == 1).sum()), int((parsed.is_consumer == 0).sum())
        if name == "validation" and not rendered and num_consumer != RELEASED_VALIDATION_CONSUMER:
            expected = f"expected the {RELEASED_VALIDATION_CONSUMER:,} consumer photos of the release"
            problems.append(Problem(str(folder / "annos"), f"{expected}, found {num_consumer:,}", fatal=False))
    chosen = _chosen(files.photo_ids[files.photo_bytes > 0], decode)
    problems += _photo_problems(folder / "image", chosen, items, progress)
    matched, unmatched = (None, None) if items is None else _matches(items)
    if unmatched and name != "train":
        what = f"{unmatched:,} consumer items of style > 0 have no shop item of their pair and style"
        problems.append(Problem(str(folder), f"{what}: the official scorer stops at such a query", fatal=False))
    report = SplitReport(
        name=name,
        num_photos=len(files.photo_ids),
        num_consumer=num_consumer,
        num_shop=num_shop,
        num_decoded=len(chosen),
        num_items=None if items is None else len(items),
        items_per_category=None if items is None else _per_category(items),
        num_pairs=None if items is None else len(np.unique(items.pair_ids)),
        num_matched_consumer_items=matched,
        num_unmatched_consumer_items=unmatched,
        num_style_0_items=None if items is None else int((items.styles == 0).sum()),
    )
    return report, problems


def _matches(items: Items) -> tuple[int, int]:
    """Consumer items of style > 0 with, and without, a shop item of the same pair and style."""
    styled = items.take(items.styles > 0)
    identities = np.stack([styled.pair_ids, styled.styles], axis=1)
    _, identity = np.unique(identities, axis=0, return_inverse=True)
    identity = identity.reshape(-1)
    answered = np.isin(identity[styled.is_consumer], identity[~styled.is_consumer])
    return int(answered.sum()), int((~answered).sum())


def _per_category(items: Items) -> dict[str, int]:
    counts = np.bincount(items.category_ids, minlength=len(CATEGORIES) + 1)[1:]
    return dict(zip(CATEGORIES, counts.tolist(), strict=True))


def _chosen(image_ids: Ints, decode: Decode) -> Ints:
    if decode == "none":
        return image_ids[:0]
    if decode == "all" or len(image_ids) <= SAMPLE_PHOTOS:
        return image_ids
    return image_ids[np.linspace(0, len(image_ids) - 1, SAMPLE_PHOTOS).astype(np.int64)]


def _photo_problems(photo_dir: Path, image_ids: Ints, items: Items | None, progress: Progress | None) -> list[Problem]:
    """Photos that cannot be decoded, and boxes that lie wholly outside theirs."""
    problems: list[Problem] = []

    def look(image_id: int) -> tuple[int, int] | Problem:
        path = photo_dir / f"{image_id:06d}.jpg"
        try:
            height, width = decode_rgb(path).shape[:2]
        except InputError as error:
            return Problem(str(path), str(error).removeprefix(f"{path}: "))
        return width, height

    with ThreadPoolExecutor(4) as pool:
        for start in range(0, len(image_ids), _CHUNK):
            part = image_ids[start : start + _CHUNK].tolist()
            for image_id, seen in zip(part, pool.map(look, part), strict=True):
                if isinstance(seen, Problem):
                    problems.append(seen)
                elif items is not None:
                    problems += _boxes_outside(photo_dir, items, image_id, *seen)
            if progress is not None:
                progress(min(start + _CHUNK, len(image_ids)), len(image_ids))
    return problems


def _boxes_outside(photo_dir: Path, items: Items, image_id: int, width: int, height: int) -> list[Problem]:
    rows = range(*np.searchsorted(items.image_ids, [image_id, image_id + 1]).tolist())
    problems = []
    for row in rows:
        x1, y1, x2, y2 = items.boxes_xyxy[row].tolist()
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            what = f"item{items.item_numbers[row]}'s box {[x1, y1, x2, y2]} lies outside the photo ({width} × {height})"
            problems.append(Problem(str(photo_dir / f"{image_id:06d}.jpg"), what, fatal=False))
    return problems
