"""Photos in: decoding, and the size of a photo without decoding it.

The pixels are those of the file, with any EXIF orientation ignored: DeepFashion2's boxes, polygons
and landmarks are in the coordinates of the stored pixels (its own converter takes width and height
from the file header, which knows nothing of EXIF), so turning a photo would move it away from them.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.types import InputError

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_REMEDY = "restore the photo from the archive it came from"

# The flags for colour are of BGR and cannot go with IMREAD_COLOR_RGB; those for grey are the reduction alone.
REDUCTIONS = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
"""How many times smaller a JPEG may be decoded, with OpenCV's flag for it."""


def decode_rgb(path: Path) -> NDArray[np.uint8]:
    """The stored pixels of a photo.

    Args:
        path: a JPEG file (PNG and whatever else OpenCV reads is taken as well).

    Returns:
        (H, W, 3) uint8 in the order red, green, blue; EXIF orientation ignored.

    Raises:
        InputError: the file is missing, empty, cut short or no image.
    """
    return _decoded(path, _read(path), 0)


def decode_reduced(path: Path, reduction: Callable[[int, int], int]) -> tuple[NDArray[np.uint8], int]:
    """A photo at a half, a quarter or an eighth of its size, which a JPEG is decoded to in less time.

    The pixel at column c and row r stands for the photo's columns and rows from f·c and f·r on, f of each; the last
    column and row may stand for fewer.

    Args:
        path: as for `decode_rgb`.
        reduction: for the photo's width and height in pixels the f that is wanted, one of `REDUCTIONS`.

    Returns:
        (⌈H / f⌉, ⌈W / f⌉, 3) uint8 in the order red, green, blue, and f, which is 1 for whatever is no JPEG.

    Raises:
        InputError: as for `decode_rgb`.
    """
    data = _read(path)
    factor = reduction(*_header_size(path, io.BytesIO(data))) if data.startswith(_JPEG_START) else 1
    return _decoded(path, data, REDUCTIONS[factor]), factor


def _decoded(path: Path, data: bytes, flags: int) -> NDArray[np.uint8]:
    if data.startswith(_JPEG_START) and _ends_early(data):
        _refuse_truncated(path)
    flags |= cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:  # raised for absurd sizes in a damaged header
        raise InputError(f"{path}: cannot be decoded ({error.err}); {_REMEDY}") from error
    if pixels is None:
        raise InputError(f"{path}: is not an image that can be decoded ({len(data):,} bytes); {_REMEDY}")
    return pixels  # type: ignore[return-value]


def photo_size(path: Path) -> tuple[int, int]:
    """Width and height from the file's header, without decoding the pixels (about 0.1 ms).

    Args:
        path: an image file.

    Returns:
        (width, height) in pixels, EXIF orientation ignored as in `decode_rgb`.

    Raises:
        InputError: the file is missing, empty or no image.
    """
    return _header_size(path, path)


def _header_size(path: Path, source: Path | io.BytesIO) -> tuple[int, int]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(source) as photo:
            return photo.size
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such photo; {_REMEDY}") from error
    except (UnidentifiedImageError, SyntaxError) as error:
        raise InputError(f"{path}: is not an image ({path.stat().st_size:,} bytes); {_REMEDY}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); {_REMEDY}") from error


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such photo; {_REMEDY}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the disk and the file's rights") from error
    if not data:
        raise InputError(f"{path}: is empty (0 bytes); {_REMEDY}")
    return data


def _ends_early(data: bytes) -> bool:
    """True if no end marker follows the last scan of a JPEG.

    Neither marker can occur inside entropy-coded data, and the markers of an EXIF thumbnail lie
    before the photo's own scan, so a thumbnail does not hide a cut.
    """
    return data.rfind(_JPEG_END) < data.rfind(_JPEG_SCAN)


def _refuse_truncated(path: Path) -> None:
    """Raise unless all pixels are there after all: decoders fill what a cut JPEG lacks with grey."""
    from PIL import Image

    try:
        with Image.open(path) as photo:
            photo.load()
    except (OSError, SyntaxError) as error:
        raise InputError(f"{path}: is cut short ({path.stat().st_size:,} bytes); {_REMEDY}") from error
