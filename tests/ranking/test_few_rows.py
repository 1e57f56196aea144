"""Neighbours of few rows among themselves, told from products in bfloat16, against all similarities in float64."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.ranking import few_rows
from harness.ranking.exact import Workers
from harness.ranking.few_rows import MOST_ROWS, FewRows, RoundedRows, is_few


def neighbours_of_few(rows, weights, added, count, num_threads):
    with ThreadPoolExecutor(num_threads) as pool:
        few = FewRows(rows, weights, Workers(num_threads, pool))
        return RoundedRows(few, added).nearest(np.arange(len(added)), 0, count)


def assert_exact(rows, weights, added, count, atol=1e-12):
    found = neighbours_of_few(rows, weights, added, count, num_threads=2)
    similarities = np.zeros((len(added), len(added)))
    for part, weight in zip(rows, weights, strict=True):
        similarities += weight * np.einsum("qd,gd->qg", part.astype(float), part.astype(float))
    similarities += added
    expected = np.argsort(-similarities, axis=1, kind="stable")[:, :count]
    assert found.ids.shape == found.similarities.shape == expected.shape
    # Rows whose sums differ in the last bits of float64 may stand in either order.
    best = np.take_along_axis(similarities, expected, axis=1)
    np.testing.assert_allclose(np.take_along_axis(similarities, found.ids, axis=1), best, rtol=0, atol=atol)
    np.testing.assert_allclose(found.similarities, best, rtol=0, atol=atol)
    np.testing.assert_allclose(found.lowest, similarities.min(axis=1), rtol=0, atol=atol)
    same = np.diff(found.similarities, axis=1) == 0
    assert (np.diff(found.ids, axis=1)[same] > 0).all(), "equal similarities must come in the order of the rows"


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_rows=st.integers(1, 150),
    dimensions=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    count=st.integers(1, 40),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    num_twins=st.integers(0, 60),
    scale=st.sampled_from([1.0, 30.0]),
)
def test_neighbours_are_exact(seed, num_rows, dimensions, count, dtype, num_twins, scale) -> None:
    rng = np.random.default_rng(seed)
    twins = rng.integers(0, num_rows, num_twins)
    rows = []
    for size in dimensions:
        part = scale * rng.normal(size=(num_rows, size)) / np.sqrt(size)
        part[twins] = part[0]
        rows.append(part.astype(dtype))
    weights = rng.uniform(0.2, 3, len(rows)).tolist()
    added = rng.normal(size=num_rows) * 0.1
    added[twins] = added[0]
    assert_exact(rows, weights, added, min(count, num_rows), atol=1e-12 * scale**2)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_many_rows_that_bfloat16_cannot_tell_apart(dtype) -> None:
    # 800 rows within a hair of one another: their products are one number in bfloat16.
    rng = np.random.default_rng(0)
    rows = np.ones((800, 16)) / 4 + 1e-3 * rng.normal(size=(800, 16))
    assert_exact([rows.astype(dtype)], [1.0], np.zeros(800), 25)


def test_near_rows_that_stand_in_one_stride_are_all_found() -> None:
    # The first look takes every 100th column of 1,600 together; all near rows of row 7 are there.
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(1600, 24)).astype(np.float32)
    rows[7::100] = rows[7] + 0.01 * rng.normal(size=(16, 24))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert_exact([rows], [1.0], np.zeros(1600), 16)
    assert set(neighbours_of_few([rows], [1.0], np.zeros(1600), 16, 1).ids[7]) == set(range(7, 1600, 100))


def test_products_that_bfloat16_rounds_by_half_a_step() -> None:
    # Row 0 with itself is 1 + 2^-8, which becomes 1; with row 1 it is 1 + 1.5 * 2^-8, which becomes 1 + 2^-7. What is
    # added leaves the first the larger one: 1.0039 and 1.0029. Once no more than 2^-8.9 was allowed for.
    rows = np.array([[1, 0.0625], [1, 0.09375]], np.float32)
    added = np.array([0.0, -0.003])
    assert_exact([rows], [1.0], added, 1)
    assert neighbours_of_few([rows], [1.0], added, 1, 1).ids[0] == 0


def test_what_is_few(monkeypatch) -> None:
    monkeypatch.setattr("harness.ranking.search_plan.has_bf16_units", lambda: True)
    assert is_few([np.zeros((MOST_ROWS, 4), np.float16)])
    assert not is_few([np.zeros((MOST_ROWS + 1, 4), np.float16)])
    monkeypatch.setattr(few_rows, "_MOST_NUMBERS", 1000)
    assert is_few([np.zeros((100, 4)), np.zeros((100, 6))])
    assert not is_few([np.zeros((100, 4)), np.zeros((100, 7))])
    monkeypatch.setattr("harness.ranking.search_plan.has_bf16_units", lambda: False)
    assert not is_few([np.zeros((100, 4))])
