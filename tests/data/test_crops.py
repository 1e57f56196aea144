import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.crops import crop, window

RAMP_HW3 = np.dstack([np.tile(np.arange(12, dtype=np.uint8) * 20, (10, 1))] * 3)
RAMP_HW3[..., 1] = np.arange(10, dtype=np.uint8)[:, None] * 25


def test_a_box_of_whole_pixels_at_its_own_size_is_the_slice() -> None:
    assert np.array_equal(crop(RAMP_HW3, [2, 3, 7, 9], (5, 6)), RAMP_HW3[3:9, 2:7])


def test_fractions_widen_to_whole_pixels() -> None:
    assert np.array_equal(crop(RAMP_HW3, [2.4, 3.9, 6.1, 8.2], (5, 6)), RAMP_HW3[3:9, 2:7])


def test_margin_is_a_fraction_of_each_side() -> None:
    # 4 wide and 2 high grow by 2 and 1 on each side
    assert np.array_equal(crop(RAMP_HW3, [4, 4, 8, 6], (8, 4), margin=0.5), RAMP_HW3[3:7, 2:10])


def test_boxes_are_clipped_to_the_photo() -> None:
    assert np.array_equal(crop(RAMP_HW3, [-5, -5, 4, 3], (4, 3)), RAMP_HW3[:3, :4])
    assert np.array_equal(crop(RAMP_HW3, [8, 7, 99, 99], (4, 3)), RAMP_HW3[7:, 8:])


@pytest.mark.parametrize(
    ("box", "pixel"),
    [
        ([5, 5, 5, 5], (5, 5)),
        ([12, 10, 12, 10], (9, 11)),
        ([-9, -9, -3, -3], (0, 0)),
        ([40, 2, 50, 3], (2, 11)),
        ([3, 70, 4, 90], (9, 3)),
    ],
)
def test_an_empty_crop_becomes_the_nearest_pixel(box: list[float], pixel: tuple[int, int]) -> None:
    assert (crop(RAMP_HW3, box, (3, 2)) == RAMP_HW3[pixel]).all()


def test_shrinking_averages_and_growing_interpolates() -> None:
    checks = np.indices((8, 8)).sum(0).astype(np.uint8) % 2 * 200
    photo = np.dstack([checks] * 3)
    assert (crop(photo, [0, 0, 8, 8], (4, 4)) == 100).all()
    expected = cv2.resize(RAMP_HW3[2:4, 2:4], (9, 9), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(crop(RAMP_HW3, [2, 2, 4, 4], (9, 9)), expected)


SIDE = st.floats(-50, 60, allow_nan=False)


@given(SIDE, SIDE, SIDE, SIDE, st.integers(1, 9), st.integers(1, 9), st.floats(0, 3), st.integers(1, 12))
def test_a_valid_crop_always_comes_back(
    a: float, b: float, c: float, d: float, width: int, height: int, margin: float, columns: int
) -> None:
    photo = RAMP_HW3[:, :columns]
    result = crop(photo, [min(a, c), min(b, d), max(a, c), max(b, d)], (width, height), margin)
    assert result.shape == (height, width, 3)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert int(result[..., 0].max()) <= int(photo[..., 0].max())


@pytest.mark.parametrize(
    ("box", "size", "margin"),
    [
        ([5, 0, 4, 9], (2, 2), 0.0),
        ([0, 5, 4, 4], (2, 2), 0.0),
        ([0, 0, float("nan"), 4], (2, 2), 0.0),
        ([0, 0, 4, 4], (0, 2), 0.0),
        ([0, 0, 4, 4], (2, 2), -0.1),
        ([0, 0, 4, 4], (2, 2), float("nan")),
    ],
)
def test_nonsense_is_refused(box: list[float], size: tuple[int, int], margin: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        crop(RAMP_HW3, box, size, margin)


@given(
    numbers=st.lists(st.floats(-30, 90), min_size=8, max_size=8),
    width=st.integers(1, 60),
    height=st.integers(1, 60),
    margin=st.floats(0, 1),
)
def test_boxes_of_one_window_have_one_crop(numbers: list[float], width: int, height: int, margin: float) -> None:
    photo = np.arange(width * height * 3, dtype=np.uint32).reshape(height, width, 3).astype(np.uint8)
    first, second = (
        [min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in (numbers[:4], np.round(numbers[:4]).tolist())
    )
    windows = [window(box, (width, height), margin) for box in (first, second)]
    left, top, right, bottom = windows[0]
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    crops = [crop(photo, box, (5, 4), margin) for box in (first, second)]
    assert windows[0] != windows[1] or np.array_equal(*crops)
    assert np.array_equal(crops[0], crop(photo[top:bottom, left:right], [0, 0, right - left, bottom - top], (5, 4)))
