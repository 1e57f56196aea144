"""Exact search against a brute-force oracle in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.ranking.search import SearchOptions, nearest

TINY = SearchOptions(memory_bytes=20_000)  # blocks of a few rows


def all_similarities(queries, gallery, weights):
    """(Q, G) in float64, every pair summed in the same order."""
    total = np.zeros((len(queries[0]), len(gallery[0])))
    for query, rows, weight in zip(queries, gallery, weights or [1.0] * len(queries), strict=True):
        total += weight * np.einsum("qd,gd->qg", query.astype(float), rows.astype(float))
    return total


def features(rng, num_rows, dimensions, dtype, duplicates):
    rows = rng.normal(size=(num_rows, dimensions))
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    if duplicates and num_rows > 2:
        rows[rng.integers(num_rows, size=num_rows // 2)] = rows[0]
    return rows.astype(dtype)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_queries=st.integers(0, 9),
    num_gallery=st.integers(0, 60),
    dimensions=st.lists(st.integers(1, 17), min_size=1, max_size=4),
    top_k=st.integers(1, 25),
    dtype=st.sampled_from([np.float16, np.float32]),
    duplicates=st.booleans(),
    weighted=st.booleans(),
)
def test_ids_and_similarities_are_the_oracles(
    seed, num_queries, num_gallery, dimensions, top_k, dtype, duplicates, weighted
) -> None:
    rng = np.random.default_rng(seed)
    queries = [features(rng, num_queries, d, dtype, False) for d in dimensions]
    shared = int(rng.integers(1 << 30))  # every model repeats the same rows, so that whole rows tie
    gallery = [features(np.random.default_rng(shared), num_gallery, d, dtype, duplicates) for d in dimensions]
    weights = list(rng.uniform(0.1, 3, len(dimensions))) if weighted else None
    ids, similarities = nearest(queries, gallery, top_k, weights)
    sims_QG = all_similarities(queries, gallery, weights)
    expected_ids = np.argsort(-sims_QG, axis=1, kind="stable")[:, :top_k]
    assert ids.shape == similarities.shape == expected_ids.shape == (num_queries, min(top_k, num_gallery))
    expected = np.take_along_axis(sims_QG, expected_ids, axis=1)
    np.testing.assert_allclose(similarities, expected, atol=1e-6)
    # Two different rows whose sums differ in the last bits of float64 may stand in either order.
    np.testing.assert_allclose(np.take_along_axis(sims_QG, ids, axis=1), expected, rtol=0, atol=1e-13)
    for row in range(num_queries):
        same = np.diff(expected[row]) == 0
        assert (np.diff(ids[row])[same] > 0).all(), "equal similarities must come in the order of the gallery"


def test_a_gallery_of_equal_rows_is_answered_in_row_order_whatever_the_blocks() -> None:
    gallery = np.tile(np.array([[0.6, 0.0, 0.8]], np.float16), (500, 1))
    gallery[321] = [0.0, 1.0, 0.0]
    ids, _ = nearest([np.array([[0.0, 0.6, 0.8]], np.float32)], [gallery], 20, options=TINY)
    assert ids.tolist() == [list(range(20))]


def test_a_difference_that_float32_cannot_see_still_decides() -> None:
    # 40 rows whose similarities differ by 1e-9: float32 calls them equal, float64 does not.
    gallery = np.zeros((40, 2), np.float64)
    gallery[:, 0] = 1 - 1e-9 * np.arange(40)[::-1]
    ids, _ = nearest([np.array([[1.0, 0.0]])], [gallery], 5)
    assert ids.tolist() == [[39, 38, 37, 36, 35]]


def test_small_blocks_give_the_same_answer() -> None:
    rng = np.random.default_rng(3)
    queries, gallery = [features(rng, 50, 8, np.float16, False)], [features(rng, 900, 8, np.float16, True)]
    whole = nearest(queries, gallery, 20)
    np.testing.assert_array_equal(nearest(queries, gallery, 20, options=TINY)[0], whole[0])


@pytest.mark.parametrize(
    "queries, gallery, top_k, weights, says",
    [
        ([], [], 1, None, "one query and one gallery array"),
        ([np.ones((1, 2))], [np.ones((1, 3))], 1, None, "shapes"),
        ([np.ones((1, 2)), np.ones((2, 2))], [np.ones((3, 2))] * 2, 1, None, "do not match"),
        ([np.ones((1, 2))], [np.ones((3, 2))], 0, None, "top_k"),
        ([np.ones((1, 2))], [np.ones((3, 2))], 1, [-1.0], "positive weights"),
        ([np.ones((1, 2))], [np.array([[1, 2], [np.nan, 0]])], 1, None, "gallery: row 1 is not finite"),
        ([np.array([[np.inf, 0]])], [np.ones((3, 2))], 1, None, "queries: row 0 is not finite"),
    ],
)
def test_bad_input_is_named(queries, gallery, top_k, weights, says) -> None:
    with pytest.raises(ValueError, match=says):
        nearest(queries, gallery, top_k, weights)
