"""mmdet's own transforms of training photos, as the steps of a recipe's ``transforms``.

They see what mmdet would show them (a BGR photo, its boxes and polygons) and draw from numpy's,
Python's and torch's global streams, which are seeded for the photo and put back afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.detection import placement
from harness.detection.bridge import provide_operators
from harness.detection.configs import from_plain
from harness.types import InputError

MIXING = ("Mosaic", "MixUp", "CachedMosaic", "CachedMixUp", "CopyPaste")
"""Transforms that need further photos than the one at hand."""


@dataclass(frozen=True)
class Changed:
    """A training photo after its transforms.

    Attributes:
        laid: photo, boxes and which items are left; no polygons.
        masks: (N, H, W) uint8 of 0 and 1; None if none were asked for.
    """

    laid: placement.Laid
    masks: NDArray[np.uint8] | None


class Transforms:
    """A chain of mmdet's transforms.

    Args:
        steps: each with ``type`` and the arguments of that transform.

    Raises:
        InputError: there is no such transform, it refuses its arguments, or it needs further photos.
    """

    def __init__(self, steps: Sequence[Mapping[str, Any]]) -> None:
        provide_operators()
        import mmdet.datasets.transforms  # noqa: F401  (registers them)
        from mmdet.registry import TRANSFORMS
        from mmengine.registry import DefaultScope, init_default_scope

        if DefaultScope.get_current_instance() is None:
            init_default_scope("mmdet")
        self._steps = []
        for place, step in enumerate(steps):
            kind = step.get("type")
            where = f"transforms[{place}] ({kind})"
            if not isinstance(kind, str):
                raise InputError(f"transforms[{place}]: expected a 'type', the name of one of mmdet's transforms")
            if kind.removeprefix("mmdet.") in MIXING:
                raise InputError(f"{where}: mixes several photos, which is not supported here; leave it out")
            try:
                self._steps.append(TRANSFORMS.build(_with_tuples(from_plain(step))))
            except (KeyError, TypeError, ValueError, AssertionError, ImportError) as error:
                why = str(error).strip().splitlines()
                raise InputError(f"{where}: mmdet cannot make it: {why[0] if why else 'an assertion fails'}") from error

    def __call__(
        self,
        photo: placement.Photo,
        boxes_xyxy: NDArray[np.float64],
        polygons: Sequence[Sequence[placement.Polygon]] | None,
        rng: np.random.Generator,
    ) -> Changed | None:
        """A photo with its items after all transforms; None if they leave no box.

        Boxes that are left narrower than `placement.SMALLEST_PX` are dropped, as in `placement`.

        Args:
            photo: (h, w, 3) uint8 RGB.
            boxes_xyxy: (N, 4) pixels of the photo.
            polygons: per item its polygons, pixels of the photo; None for no masks.
            rng: all randomness comes from here.

        Raises:
            InputError: a transform fails on this photo.
        """
        result = _as_mmdet(photo, boxes_xyxy, polygons)
        with _global_streams(rng):
            for place, step in enumerate(self._steps):
                try:
                    result = step(result)
                except Exception as error:  # some transform of the user's, which may raise anything
                    what = f"transforms[{place}] ({type(step).__name__})"
                    size = f"{photo.shape[1]}x{photo.shape[0]} px"
                    raise InputError(f"{what} of a photo of {size} fails: {type(error).__name__}: {error}") from error
                if result is None:
                    return None
        height, width = result["img"].shape[:2]
        boxes = np.asarray(result["gt_bboxes"].tensor, np.float64).reshape(-1, 4)
        boxes = np.clip(boxes, 0, np.array([width, height] * 2, np.float64))
        left = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] >= placement.SMALLEST_PX).all(axis=1))
        if len(left) == 0:
            return None
        # Colour transforms leave floats, some of them outside the range.
        pixels = result["img"]
        if pixels.dtype != np.uint8:
            pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        kept = np.asarray(result["gt_bboxes_labels"], np.int64)[left]
        masks = None if polygons is None else result["gt_masks"][left].to_ndarray().astype(np.uint8)
        laid = placement.Laid(np.ascontiguousarray(pixels[..., ::-1]), boxes[left].astype(np.float32), kept, [])
        return Changed(laid, masks)


def _as_mmdet(
    photo: placement.Photo, boxes_xyxy: NDArray[np.float64], polygons: Sequence[Sequence[placement.Polygon]] | None
) -> dict[str, Any]:
    """What mmdet's loading leaves; rows stand in for labels, so that it can be told which items are left."""
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import PolygonMasks

    height, width = photo.shape[:2]
    limits = np.array([width, height] * 2, np.float64)
    result: dict[str, Any] = {
        "img": np.ascontiguousarray(photo[..., ::-1]),
        "img_shape": (height, width),
        "ori_shape": (height, width),
        "height": height,
        "width": width,
        "gt_bboxes": HorizontalBoxes(np.clip(boxes_xyxy, 0, limits).astype(np.float32)),
        "gt_bboxes_labels": np.arange(len(boxes_xyxy), dtype=np.int64),
        "gt_ignore_flags": np.zeros(len(boxes_xyxy), bool),
    }
    if polygons is not None:
        flat = [[part.ravel() for part in parts] for parts in polygons]
        # An item without a polygon has no pixel of its own; pycocotools wants some polygon all the same.
        result["gt_masks"] = PolygonMasks([parts or [np.zeros(6)] for parts in flat], height, width)
    return result


def _with_tuples(node: Any) -> Any:
    """TOML and JSON know lists only; mmcv asks for tuples where it means sizes and ranges, not for probabilities."""
    if isinstance(node, Mapping):
        return {key: value if key == "prob" else _with_tuples(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        parts = [_with_tuples(part) for part in node]
        numbers = bool(parts) and all(isinstance(part, int | float) for part in parts)
        return tuple(parts) if numbers or isinstance(node, tuple) else parts
    return node


@contextmanager
def _global_streams(rng: np.random.Generator) -> Iterator[None]:
    """Seed the global streams for a while: a resumed training finds them elsewhere than an unbroken one."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002  (mmdet's stream)
    seeds = [int(one) for one in rng.integers(2**32, size=3)]
    random.seed(seeds[0])
    np.random.seed(seeds[1])  # noqa: NPY002  (mmdet's stream)
    torch.default_generator.manual_seed(seeds[2])
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002  (mmdet's stream)
        torch.set_rng_state(before[2])
