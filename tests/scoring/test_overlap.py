import numpy as np
import pycocotools.mask
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.scoring.overlap import common_codes, distinct, iou, join
from tests.scoring.worlds import hear, item, query, result


def reference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    def xywh(boxes):
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)

    pairs = zip(xywh(first), xywh(second), strict=True)
    return np.array([pycocotools.mask.iou(a[None], b[None], [0])[0, 0] for a, b in pairs])


def boxes(rng: np.random.Generator, n: int, kind: str) -> np.ndarray:
    if kind == "pixels":
        corners = rng.uniform(0, 800, (n, 2, 2))
    elif kind == "integers":
        corners = rng.integers(0, 12, (n, 2, 2)).astype(float)
    else:
        corners = rng.integers(0, 12, (n, 2, 2)) / 3 + rng.integers(-2, 3, (n, 2, 2)) * 2.0**-50
    if kind != "integers":
        corners.sort(axis=1)
    return corners.reshape(n, 4)


def test_equals_pycocotools_to_the_last_bit():
    rng = np.random.default_rng(0)
    for kind in ("pixels", "integers", "thirds"):
        first, second = boxes(rng, 5000, kind), boxes(rng, 5000, kind)
        np.testing.assert_array_equal(iou(first, second), reference(first, second))


def test_equals_pycocotools_just_around_one_half():
    """Box and its half at jittered places: the threshold falls on either side by the last bit."""
    rng = np.random.default_rng(1)
    x, y, w, h = rng.uniform(0, 500, (4, 20_000))
    whole = np.stack([x, y, x + w, y + h], axis=1)
    half = np.stack([x, y, x + w, y + h / 2], axis=1)
    ours, theirs = iou(whole, half), reference(whole, half)
    np.testing.assert_array_equal(ours, theirs)
    above = (theirs >= 0.5).mean()
    assert 0.2 < above < 0.95  # both sides occur, so the equality above decides something


def test_hand_worked_overlaps():
    first = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [5, 5, 5, 5], [10, 10, 0, 0]], float)
    second = np.array([[0, 0, 10, 5], [5, 5, 15, 15], [10, 0, 20, 10], [5, 5, 5, 5], [0, 0, 10, 10]], float)
    assert iou(first, second).tolist() == [0.5, 25 / 175, 0, 0, 0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [1e-200, 1e-165, 1e160, 1e300, 1.7e308])
def test_areas_beyond_floats_overlap_nothing(side):
    """They were NaN, so the box went to no item at all, and numpy's warnings stood between the tables."""
    box = np.array([[0, 0, side, side], [-side, -side, side, side]])
    assert iou(box, box).tolist() == [0, 0]
    results = [result(1, [0, 0, side, side])]
    assert hear(results, [query(1, [0, 0, side, side])], [item(5, [0, 0, 9, 9])]).item_rows.tolist() == [0]


KEYS = st.integers(0, 4) | st.sampled_from([-3, 60, 2**62])


@given(st.lists(KEYS, max_size=12), st.lists(KEYS, max_size=12))
def test_join_lists_all_equal_pairs_in_order(left, right):
    got = join(np.array(left, np.int64), np.array(right, np.int64))
    expected = [(i, j) for i in range(len(left)) for j in range(len(right)) if left[i] == right[j]]
    assert list(zip(*(rows.tolist() for rows in got), strict=True)) == expected


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 2**62)), max_size=8), st.integers(0, 8))
def test_codes_are_equal_where_tuples_are(rows, cut):
    tables = [np.array(part, np.int64).reshape(-1, 2) for part in (rows[:cut], rows[cut:])]
    codes = np.concatenate(common_codes(*((table[:, 0], table[:, 1]) for table in tables)))
    for i, first in enumerate(rows):
        for j, second in enumerate(rows):
            assert (codes[i] == codes[j]) == (first == second)


@given(st.lists(st.integers(-3, 3), max_size=8))
def test_distinct_values_are_those_of_numpy(values):
    column = np.array(values, np.int64)
    assert distinct(column).tolist() == np.unique(column).tolist()
