"""Small pictures of photos and of boxes in them, each made once, each photo decoded once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.progress import Reporter, silent
from harness.types import Floats, InputError

if TYPE_CHECKING:
    from leaderboard.pages.gallery_page import ShownPicture

CROP_PX = 104
"""The longer side of a box's picture."""

PHOTO_PX = 200
"""The longer side of a photo's picture."""

_MIME, _SUFFIX, _QUALITY = "image/webp", ".webp", 70
"""At this size WebP takes 0.6 of the bytes of a JPEG of the same quality: a JPEG's tables alone are 600 bytes."""

_THREADS = 8

Box = tuple[float, float, float, float]


class PictureBook:
    """Collects what is to be pictured, and then makes all of it.

    Args:
        photo_path: where the photo with an image id is.
    """

    def __init__(self, photo_path: Callable[[int], Path]) -> None:
        self._photo_path = photo_path
        self._places: dict[tuple[int, Box | None], int] = {}

    def crop(self, image_id: int, box_xyxy: Floats) -> int:
        """The place that the picture of a box will have.

        Args:
            image_id: its photo.
            box_xyxy: (4,) float64, pixels; corners in any order.
        """
        x1, y1, x2, y2 = (round(float(side), 1) for side in box_xyxy)
        return self._place(image_id, (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))

    def photo(self, image_id: int) -> int:
        """The place that the picture of a whole photo will have."""
        return self._place(image_id, None)

    def _place(self, image_id: int, box: Box | None) -> int:
        return self._places.setdefault((image_id, box), len(self._places))

    def make(self, report: Reporter = silent) -> list[ShownPicture]:
        """All pictures in the order of their places; grey placeholders for photos that cannot be read."""
        wanted: dict[int, list[tuple[int, Box | None]]] = {}
        for (image_id, box), place in self._places.items():
            wanted.setdefault(image_id, []).append((place, box))
        pictures: dict[int, ShownPicture] = {}
        progress = report("pictures")
        with ThreadPoolExecutor(_THREADS) as pool:
            made = pool.map(lambda item: _of_photo(self._photo_path(item[0]), item[1]), wanted.items())
            for done, some in enumerate(made, 1):
                pictures.update(some)
                progress(done, len(wanted))
        return [pictures[place] for place in range(len(pictures))]


def _of_photo(path: Path, wanted: list[tuple[int, Box | None]]) -> dict[int, ShownPicture]:
    from harness.data.photos import decode_rgb
    from leaderboard.pages.gallery_page import ShownPicture

    try:
        photo = decode_rgb(path)
    except InputError:
        return {
            place: ShownPicture(
                None, "", (PHOTO_PX, PHOTO_PX) if box is None else (CROP_PX, CROP_PX), (0, 0), path.name
            )
            for place, box in wanted
        }
    return {place: _picture(photo, box, path.name) for place, box in wanted}


def _picture(photo_HW3: NDArray[np.uint8], box: Box | None, name: str) -> ShownPicture:
    import cv2

    from harness.data.crops import crop, window
    from leaderboard.pages.gallery_page import ShownPicture

    height, width = photo_HW3.shape[:2]
    wanted = (0.0, 0.0, float(width), float(height)) if box is None else box
    left, top, right, bottom = window(wanted, (width, height))
    of_wh = right - left, bottom - top
    share = min(1.0, (PHOTO_PX if box is None else CROP_PX) / max(of_wh))
    size_wh = max(1, round(of_wh[0] * share)), max(1, round(of_wh[1] * share))
    small = crop(photo_HW3, wanted, size_wh)
    is_done, data = cv2.imencode(_SUFFIX, cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    assert is_done
    return ShownPicture(data.tobytes(), _MIME, size_wh, of_wh, name)
