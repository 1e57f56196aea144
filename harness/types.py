"""The values that pass between stages, each validated when it is made.

Legend for the suffixes of array names: N boxes or items, Q queries, G gallery boxes,
K ranked neighbours, D dimensions, P photos. Boxes are ``boxes_xyxy`` (pixels, x1 y1 x2 y2)
everywhere inside the harness; ``boxes_xywh`` (COCO) and ``boxes_unit`` (fusion) exist only at
the doors that need them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CATEGORIES: tuple[str, ...] = (
    "short sleeve top",
    "long sleeve top",
    "short sleeve outwear",
    "long sleeve outwear",
    "vest",
    "sling",
    "shorts",
    "trousers",
    "skirt",
    "short sleeve dress",
    "long sleeve dress",
    "vest dress",
    "sling dress",
)
"""Names of the categories 1–13, as the annotation files spell them; ``CATEGORIES[c - 1]``."""

RANKS: tuple[int, ...] = (1, 5, 10, 15, 20)
"""The k of the challenge's Acc@k."""

GALLERY_LENGTH = 20
"""Gallery boxes that the challenge wants for every query."""

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")

Progress = Callable[[int, int], None]
"""Called with (done, total) as a stage advances."""


class InputError(ValueError):
    """The user's input is wrong: the message names the file or place, what is wrong, and the remedy.

    ``run.py`` prints the message alone and exits with status 1.
    """


def _column(name: str, values: Any, dtype: type, length: int | None, width: int | None = None) -> Any:
    """A read-only column of the given dtype; `ValueError` if the shape or the numbers are wrong."""
    column = np.asarray(values)
    if dtype is np.int64 and column.size and column.dtype.kind not in "iu":
        raise ValueError(f"{name}: ids and categories are integers, got {column.dtype}")
    if dtype is np.bool_ and column.size and column.dtype.kind != "b":
        raise ValueError(f"{name}: expected booleans, got {column.dtype}")
    if column.flags.writeable or column.base is not None or column.dtype != dtype:  # else nobody can change it
        column = np.array(column, dtype=dtype)
    if width is not None:
        column = column.reshape(0, width) if column.size == 0 else column
        if column.ndim != 2 or column.shape[1] != width:
            raise ValueError(f"{name}: expected shape (N, {width}), got {column.shape}")
    elif column.ndim != 1:
        raise ValueError(f"{name}: expected one dimension, got shape {column.shape}")
    if length is not None and len(column) != length:
        raise ValueError(f"{name}: expected {length} rows, got {len(column)}")
    if dtype is np.float64 and not np.isfinite(column).all():
        row = int(np.argwhere(~np.isfinite(column))[0][0])
        raise ValueError(f"{name}: row {row} is not finite")
    column.setflags(write=False)
    return column


class _Columns:
    """Row-wise operations shared by the columnar values below (every field is a column)."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))  # type: ignore[arg-type]

    def take(self, rows: Any) -> Self:
        """The given rows (an index array, a boolean mask or a slice), in that order."""
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})  # type: ignore[type-var, arg-type]


@dataclass(frozen=True, eq=False)
class Detections(_Columns):
    """Boxes with scores and categories, one row a box; also ground-truth boxes, with score 1.

    Attributes:
        image_ids: (N,) int64, the number in the photo's file name.
        boxes_xyxy: (N, 4) float64, pixels of the photo; x1 <= x2 and y1 <= y2.
        scores: (N,) float64 in [0, 1].
        category_ids: (N,) int64 in 1–13.

    Raises:
        ValueError: a column has another shape or type, or a number is out of range.
    """

    image_ids: Ints
    boxes_xyxy: Floats
    scores: Floats
    category_ids: Ints

    def __post_init__(self) -> None:
        length = len(np.asarray(self.image_ids))
        set_ = object.__setattr__
        set_(self, "image_ids", _column("image_ids", self.image_ids, np.int64, length))
        set_(self, "boxes_xyxy", _column("boxes_xyxy", self.boxes_xyxy, np.float64, length, 4))
        set_(self, "scores", _column("scores", self.scores, np.float64, length))
        set_(self, "category_ids", _column("category_ids", self.category_ids, np.int64, length))
        boxes = self.boxes_xyxy
        _refuse_rows("boxes_xyxy", (boxes[:, 0] > boxes[:, 2]) | (boxes[:, 1] > boxes[:, 3]), "is inverted", boxes)
        _refuse_rows("scores", (self.scores < 0) | (self.scores > 1), "is outside [0, 1]", self.scores)
        outside = (self.category_ids < 1) | (self.category_ids > len(CATEGORIES))
        _refuse_rows("category_ids", outside, f"is outside 1–{len(CATEGORIES)}", self.category_ids)

    @classmethod
    def empty(cls) -> Detections:
        """No boxes at all."""
        return cls(*(np.zeros(shape, dtype) for shape, dtype in ((0, "i8"), ((0, 4), "f8"), (0, "f8"), (0, "i8"))))

    @classmethod
    def concatenate(cls, parts: list[Detections]) -> Detections:
        """The rows of all parts, in order."""
        if not parts:
            return cls.empty()
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))


@dataclass(frozen=True, eq=False)
class Items(_Columns):
    """Annotated garments of a split, one row an item, in the order of image id, then item number.

    Attributes:
        image_ids: (N,) int64.
        item_numbers: (N,) int64, the n of ``item<n>`` in the annotation file, from 1.
        is_consumer: (N,) bool; True for ``source: user``, False for ``source: shop``.
        boxes_xyxy: (N, 4) float64, pixels.
        category_ids: (N,) int64 in 1–13.
        styles: (N,) int64; 0 has no match anywhere.
        pair_ids: (N,) int64, one per photo.
        scales, occlusions, zoom_ins, viewpoints: (N,) int64 in 1–3; 0 where the file has none.
    """

    image_ids: Ints
    item_numbers: Ints
    is_consumer: Bools
    boxes_xyxy: Floats
    category_ids: Ints
    styles: Ints
    pair_ids: Ints
    scales: Ints
    occlusions: Ints
    zoom_ins: Ints
    viewpoints: Ints

    def __post_init__(self) -> None:
        length = len(np.asarray(self.image_ids))
        for f in fields(self):
            dtype: type = {"is_consumer": np.bool_, "boxes_xyxy": np.float64}.get(f.name, np.int64)
            width = 4 if f.name == "boxes_xyxy" else None
            object.__setattr__(self, f.name, _column(f.name, getattr(self, f.name), dtype, length, width))
        outside = (self.category_ids < 1) | (self.category_ids > len(CATEGORIES))
        _refuse_rows("category_ids", outside, f"is outside 1–{len(CATEGORIES)}", self.category_ids)
        _refuse_rows("styles", self.styles < 0, "is negative", self.styles)

    def as_detections(self) -> Detections:
        """The annotated boxes as detections of score 1: the box source ``GT`` of the ensemble language."""
        return Detections(self.image_ids, self.boxes_xyxy, np.ones(len(self)), self.category_ids)


@dataclass(frozen=True, eq=False)
class Photos(_Columns):
    """The photos of a split in ascending order of image id.

    Attributes:
        image_ids: (P,) int64, strictly ascending.
        is_consumer: (P,) bool; False is a shop photo.
    """

    image_ids: Ints
    is_consumer: Bools

    def __post_init__(self) -> None:
        length = len(np.asarray(self.image_ids))
        object.__setattr__(self, "image_ids", _column("image_ids", self.image_ids, np.int64, length))
        object.__setattr__(self, "is_consumer", _column("is_consumer", self.is_consumer, np.bool_, length))
        if (np.diff(self.image_ids) <= 0).any():
            raise ValueError("image_ids: photos must be in strictly ascending order of image id")

    def consumer_mask(self, image_ids: Ints) -> Bools:
        """For every given image id of the split, whether it is a consumer photo; `KeyError` for a foreign id."""
        if len(image_ids) == 0:
            return np.zeros(0, bool)
        if len(self) == 0:
            raise KeyError(f"image id {int(image_ids[0])} is not in the split")
        rows = np.minimum(np.searchsorted(self.image_ids, image_ids), len(self) - 1)
        foreign = self.image_ids[rows] != image_ids
        if foreign.any():
            raise KeyError(f"image id {int(np.asarray(image_ids)[foreign][0])} is not in the split")
        return self.is_consumer[rows]


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a DeepFashion2 folder.

    Attributes:
        root: the folder that holds ``train``, ``validation`` and ``test``.
        name: which split.
        photos: its photos.
        items: its annotated garments; None for a split without annotations (test).
        fingerprint: SHA-256 of the split's file names, sizes and annotations: which data this is.
        rendered: True if the folder says of itself that it was rendered (used for labels only, never to choose a path).
    """

    root: Path
    name: SplitName
    photos: Photos
    items: Items | None
    fingerprint: str
    rendered: bool = False

    def photo_path(self, image_id: int) -> Path:
        """Where the photo with this id is."""
        return self.root / self.name / "image" / f"{image_id:06d}.jpg"


@dataclass(frozen=True, eq=False)
class Embeddings:
    """L2-normalised features of one model, row-aligned with the box set they were computed on.

    Attributes:
        model: the retrieval model's name, such as ``m4``.
        vectors_ND: (N, D) float16, each row of length 1; may be a memory map.

    Raises:
        ValueError: another shape or type.
        InputError: a row is not of unit length; names the file of a memory map.
    """

    model: str
    vectors_ND: NDArray[np.float16]

    def __post_init__(self) -> None:
        if self.vectors_ND.dtype != np.float16 or self.vectors_ND.ndim != 2:
            raise ValueError(
                f"embeddings of {self.model}: expected float16 of shape (N, D), "
                f"got {self.vectors_ND.dtype} of shape {self.vectors_ND.shape}"
            )
        for start in range(0, len(self.vectors_ND), 65536):
            lengths = np.linalg.norm(self.vectors_ND[start : start + 65536].astype(np.float32), axis=1)
            wrong = ~(np.abs(lengths - 1) < 1e-2)  # half precision keeps the length to about 1e-3; NaN is wrong too
            if wrong.any():
                place = int(np.flatnonzero(wrong)[0])
                raise self._refused(start + place, float(lengths[place]))

    def _refused(self, row: int, length: float) -> InputError:
        what = "is zero" if length == 0 else f"is not of unit length ({length:.4g})"
        told = f"row {row} {what if np.isfinite(length) else 'is not finite'}"
        file = getattr(self.vectors_ND, "filename", None)  # of a memory map
        if file is None:
            return InputError(f"embeddings of {self.model}: {told}")
        remedy = f"remove the folder {Path(file).parent} and run again, it will be made anew"
        return InputError(f"{file}: embeddings of {self.model}: {told}; {remedy}")

    def __len__(self) -> int:
        return len(self.vectors_ND)


@dataclass(frozen=True, eq=False)
class Ranking:
    """For every query the most similar gallery rows; ties by ascending gallery row.

    Attributes:
        query_rows: (Q,) int64, rows of the box set that ask.
        gallery_rows_QK: (Q, K) int64, rows of the box set that answer, best first.
        similarities_QK: (Q, K) float32, descending along K.
    """

    query_rows: Ints
    gallery_rows_QK: Ints
    similarities_QK: NDArray[np.float32]

    def __post_init__(self) -> None:
        expected = (len(self.query_rows), *self.gallery_rows_QK.shape[1:])
        if self.gallery_rows_QK.ndim != 2 or self.gallery_rows_QK.shape != expected:
            raise ValueError(f"gallery_rows_QK: expected shape {expected}, got {self.gallery_rows_QK.shape}")
        if self.similarities_QK.shape != self.gallery_rows_QK.shape:
            raise ValueError(
                f"similarities_QK: expected shape {self.gallery_rows_QK.shape}, got {self.similarities_QK.shape}"
            )
        if (np.diff(self.similarities_QK, axis=1) > 0).any():
            raise ValueError("similarities_QK: rows must descend")


@dataclass(frozen=True, eq=False)
class Score:
    """What a protocol says of one result file.

    Attributes:
        protocol: ``official`` or the name of another protocol.
        num_queries: ground-truth queries of style > 0.
        hit_ranks: (num_queries,) int64, rank of the first right answer from 1, 0 for a miss, in the
            order of the query file.
        acc: Acc@k for k in `RANKS`.
    """

    protocol: str
    num_queries: int
    hit_ranks: Ints
    acc: Mapping[int, float] = field(init=False)

    def __post_init__(self) -> None:
        ranks = _column("hit_ranks", self.hit_ranks, np.int64, self.num_queries)
        if self.num_queries == 0:
            raise ValueError("hit_ranks: there is no ground-truth query of style > 0 to score")
        object.__setattr__(self, "hit_ranks", ranks)
        acc = {k: int(((ranks > 0) & (ranks <= k)).sum()) / self.num_queries for k in RANKS}
        object.__setattr__(self, "acc", acc)


@dataclass(frozen=True)
class BoxAP:
    """COCO box average precision, in [0, 1]; None where no ground truth of that kind exists."""

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None


def _refuse_rows(name: str, wrong: Bools, what: str, values: NDArray[Any]) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"{name}: row {row} {what}: {np.asarray(values[row]).tolist()}")
