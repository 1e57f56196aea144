"""Neighbours of few rows among themselves, told from products in bfloat16, against all similarities in float64."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.ranking.reranking import few_rows
from harness.ranking.reranking.close_rows import find_close
from harness.ranking.reranking.few_rows import MOST_ROWS, FewRows, RoundedRows, is_few
from harness.ranking.search import similarities_of
from harness.ranking.search.exact import Workers


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


def bf16_bits(values):
    bits = values.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).view(np.int16)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_columns=st.integers(1, 200),
    count=st.integers(1, 60),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e20]),
    offset=st.sampled_from([-1.0, 0.0, 1.0]),
    spread=st.sampled_from([0.0, 1e-3, 0.05, 1.0]),
    error=st.sampled_from([0.0, 1e-4, 4e-3, 0.3, np.inf]),
)
def test_whatever_the_errors_are_the_extremes_are_close(seed, num_columns, count, scale, offset, spread, error) -> None:
    rng = np.random.default_rng(seed)
    count = min(count, num_columns)
    products = (scale * (offset + spread * rng.normal(size=(4, num_columns)))).astype(np.float32)
    errors = np.full(4, scale * error)
    off = errors[0] if np.isfinite(error) else scale
    exact = products + off * rng.choice([-1, 1], products.shape)
    high_starts, high, low_starts, low = find_close(bf16_bits(products), errors, count)
    for row in range(4):
        close = high[high_starts[row] : high_starts[row + 1]]
        small = low[low_starts[row] : low_starts[row + 1]]
        assert len(set(close.tolist())) == len(close)
        assert len(set(small.tolist())) == len(small)
        assert set(np.flatnonzero(exact[row] >= np.sort(exact[row])[-count])) <= set(close)
        assert set(np.flatnonzero(exact[row] == exact[row].min())) <= set(small)


def test_few_columns_are_close_where_products_are_exact() -> None:
    products = np.random.default_rng(0).permutation(np.arange(-500.0, 500)).astype(np.float32)[None]
    _, high, _, low = find_close(bf16_bits(products), np.zeros(1), 10)
    # Integers above 256 are rounded: 490 to 499 are no 490 and more in bfloat16 alone.
    assert 10 <= len(high) <= 16
    assert 1 <= len(low) <= 6


def test_some_rows_ask_some() -> None:
    rng = np.random.default_rng(3)
    rows = [rng.normal(size=(300, size)).astype(np.float16) for size in (8, 40)]
    added, asked = rng.normal(size=300), np.array([7, 280, 7, 0])
    with ThreadPoolExecutor(2) as pool:
        few = FewRows(rows, [1.0, 0.5], Workers(2, pool))
        found = RoundedRows(few, added).nearest(asked, 120, 15)
        none = RoundedRows(few, added).nearest(asked[:0], 120, 15)
    parts = [part.astype(float) for part in rows]
    expected = (parts[0][asked] @ parts[0][120:].T) + 0.5 * (parts[1][asked] @ parts[1][120:].T) + added[120:]
    order = np.argsort(-expected, axis=1, kind="stable")[:, :15]
    np.testing.assert_array_equal(found.ids, order)
    np.testing.assert_allclose(found.similarities, np.take_along_axis(expected, order, axis=1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.lowest, expected.min(axis=1), rtol=0, atol=1e-12)
    assert none.ids.shape == (0, 15)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_pairs_are_scored_as_by_the_search(dtype) -> None:
    rng = np.random.default_rng(4)
    rows = [rng.normal(size=(90, size)).astype(dtype) for size in (7, 130)]
    left, right = rng.integers(0, 90, (2, 500))
    with ThreadPoolExecutor(3) as pool:
        few = FewRows(rows, [0.3, 2.0], Workers(3, pool))
        np.testing.assert_array_equal(
            few.similarities(left, right), similarities_of(rows, rows, left, right, [0.3, 2.0])
        )
        everything = np.arange(90)
        np.testing.assert_array_equal(
            few.squared_lengths(1), similarities_of(rows[1:], rows[1:], everything, everything)
        )
        assert few.similarities(left[:0], right[:0]).shape == (0,)


def test_products_that_bfloat16_rounds_by_half_a_step() -> None:
    # Row 0 with itself is 1 + 2^-8, which becomes 1; with row 1 it is 1 + 1.5 * 2^-8, which becomes 1 + 2^-7. What is
    # added leaves the first the larger one: 1.0039 and 1.0029. Once no more than 2^-8.9 was allowed for.
    rows = np.array([[1, 0.0625], [1, 0.09375]], np.float32)
    added = np.array([0.0, -0.003])
    assert_exact([rows], [1.0], added, 1)
    assert neighbours_of_few([rows], [1.0], added, 1, 1).ids[0] == 0


def test_what_is_few(monkeypatch) -> None:
    monkeypatch.setattr("harness.ranking.search.planning.has_bf16_units", lambda: True)
    assert is_few([np.zeros((MOST_ROWS, 4), np.float16)])
    assert not is_few([np.zeros((MOST_ROWS + 1, 4), np.float16)])
    monkeypatch.setattr(few_rows, "_MOST_NUMBERS", 1000)
    assert is_few([np.zeros((100, 4)), np.zeros((100, 6))])
    assert not is_few([np.zeros((100, 4)), np.zeros((100, 7))])
    monkeypatch.setattr("harness.ranking.search.planning.has_bf16_units", lambda: False)
    assert not is_few([np.zeros((100, 4))])
