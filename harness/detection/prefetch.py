"""Photos decoded and resized in threads, a little ahead of whoever looks at them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.data.photos import decode_rgb
from harness.detection.placement import Photo, resized

_AHEAD = 4
"""Photos a thread that are decoded ahead: 4 x 16 threads x 3 MB at full scale."""

InputSize = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A photo at the sizes that the networks want.

    Attributes:
        size_wh: width and height of the photo itself, pixels.
        at: the photo by the longest and shortest side that it was fitted to.
    """

    size_wh: tuple[int, int]
    at: Mapping[InputSize, Photo]

    @classmethod
    def of(cls, photo: Photo, input_sizes: Sequence[InputSize]) -> Fitted:
        """A decoded photo, fitted to each of the sizes."""
        height, width = photo.shape[:2]
        return cls((width, height), {size: resized(photo, size) for size in input_sizes})


def fitted_photos(paths: Sequence[Path], input_sizes: Sequence[InputSize], num_threads: int) -> Iterator[Fitted]:
    """The photos in the order of their paths; memory holds a bounded number of them.

    Args:
        paths: of the files.
        input_sizes: longest and shortest side, each wanted of every photo.
        num_threads: that decode; OpenCV works without Python's lock.

    Raises:
        InputError: a photo is missing or damaged.
    """
    with ThreadPoolExecutor(num_threads) as pool:
        waiting: deque[Future[Fitted]] = deque()
        try:
            for path in paths:
                waiting.append(pool.submit(_fit, path, input_sizes))
                if len(waiting) > num_threads * _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # also where the reader has failed: nobody wants the rest
            for left in waiting:
                left.cancel()


def _fit(path: Path, input_sizes: Sequence[InputSize]) -> Fitted:
    return Fitted.of(decode_rgb(path), input_sizes)
