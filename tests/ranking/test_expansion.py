"""Expansion and augmentation against a plain loop in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.ranking.expansion import (
    augment_gallery,
    augmentation_blocks,
    collect,
    combine,
    expand_queries,
    expansion_blocks,
    expansion_weights,
)
from harness.ranking.rows import choose
from harness.types import InputError


def unit_rows(rng, num_rows, dimensions, duplicates=False):
    """Off the origin, so that neighbours are alike, as embeddings are."""
    rows = rng.normal(size=(num_rows, dimensions)) + 1
    if duplicates and num_rows:
        rows[rng.integers(num_rows, size=num_rows // 2)] = rows[0]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def slow_nearest(queries, gallery, top_k, weights):
    """By float64, equal ones in the order of the gallery."""
    total = np.zeros((len(queries[0]), len(gallery[0])))
    for query, rows, weight in zip(queries, gallery, weights, strict=True):
        total += weight * np.einsum("qd,gd->qg", np.asarray(query[:], float), np.asarray(rows[:], float))
    ids = np.argsort(-total, axis=1, kind="stable")[:, :top_k]
    return ids, np.take_along_axis(total, ids, axis=1)


def slow_expansion(queries, gallery, k, weights, weighting, alpha, is_own_gallery=False):
    """One row after another: itself, and the k best others."""
    ids, similarities = slow_nearest(queries, gallery, len(gallery[0]), weights)
    models = range(len(queries))
    out = [np.empty(query.shape) for query in queries]
    for row in range(len(queries[0])):
        best = [(i, s) for i, s in zip(ids[row], similarities[row], strict=True) if not (is_own_gallery and i == row)]
        best = best[:k]
        sums = [queries[m][row].astype(float) for m in models]
        for place, (i, similarity) in enumerate(best, start=1):
            cosine = similarity / sum(weights)
            count = {
                "plain": 1.0,
                "rank": (len(best) + 1 - place) / (len(best) + 1),
                "alpha": max(cosine, 0.0) ** alpha,
            }[weighting]
            sums = [total + count * gallery[m][i].astype(float) for m, total in zip(models, sums, strict=True)]
        square = sum(weight * (total @ total) for weight, total in zip(weights, sums, strict=True))
        for m in models:
            out[m][row] = sums[m] * np.sqrt(sum(weights) / square)
    return out


STACKS = {
    "seed": st.integers(0, 10**6),
    "num_gallery": st.integers(1, 25),
    "dimensions": st.lists(st.integers(2, 9), min_size=1, max_size=3),
    "k": st.integers(1, 8),
    "weighting": st.sampled_from(["plain", "rank", "alpha"]),
    "alpha": st.sampled_from([0.5, 3.0]),
    "weighted": st.booleans(),
    "memory_bytes": st.sampled_from([None, 1, 700]),
}


@settings(max_examples=60, deadline=None)
@given(num_queries=st.integers(0, 12), **STACKS)
def test_queries_are_expanded_as_by_the_oracle(
    seed, num_gallery, dimensions, k, weighting, alpha, weighted, memory_bytes, num_queries
) -> None:
    rng = np.random.default_rng(seed)
    queries = [unit_rows(rng, num_queries, d) for d in dimensions]
    gallery = [unit_rows(rng, num_gallery, d) for d in dimensions]
    weights = rng.uniform(0.2, 3, len(dimensions)).tolist() if weighted else None
    found = expand_queries(queries, gallery, k, weights, weighting=weighting, alpha=alpha, memory_bytes=memory_bytes)
    expected = slow_expansion(queries, gallery, k, weights or [1.0] * len(dimensions), weighting, alpha)
    assert [rows.dtype for rows in found] == [np.float16] * len(dimensions)
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, two, atol=2e-3)


@settings(max_examples=60, deadline=None)
@given(duplicates=st.booleans(), **STACKS)
def test_the_gallery_is_augmented_as_by_the_oracle(
    seed, num_gallery, dimensions, k, weighting, alpha, weighted, memory_bytes, duplicates
) -> None:
    rng = np.random.default_rng(seed)
    shared = int(rng.integers(1 << 30))  # every model repeats the same rows, so that whole rows tie
    gallery = [unit_rows(np.random.default_rng(shared), num_gallery, d, duplicates) for d in dimensions]
    weights = rng.uniform(0.2, 3, len(dimensions)).tolist() if weighted else None
    found = augment_gallery(gallery, k, weights, weighting=weighting, alpha=alpha, memory_bytes=memory_bytes)
    expected = slow_expansion(gallery, gallery, k, weights or [1.0] * len(dimensions), weighting, alpha, True)
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, two, atol=2e-3)


def test_weights_by_hand() -> None:
    cosines = np.array([[0.8, 0.5, -0.1], [1.0, 0.0, -1.0]], np.float32)
    assert expansion_weights(cosines, "plain").tolist() == [[1, 1, 1, 1]] * 2
    assert expansion_weights(cosines, "rank").tolist() == [[1, 0.75, 0.5, 0.25]] * 2
    alpha = expansion_weights(cosines, "alpha")
    np.testing.assert_allclose(alpha, [[1, 0.512, 0.125, 0], [1, 1, 0, 0]], atol=1e-7)
    np.testing.assert_allclose(expansion_weights(cosines, "alpha", 0), [[1, 1, 1, 0], [1, 1, 0, 0]])
    assert expansion_weights(np.zeros((0, 4)), "rank").shape == (0, 5)
    assert expansion_weights(np.zeros((2, 0)), "alpha").tolist() == [[1], [1]]


def test_one_neighbour_by_hand() -> None:
    queries, gallery = [np.array([[1.0, 0.0]])], [np.array([[0.0, 1.0], [0.6, 0.8]])]
    plain = expand_queries(queries, gallery, 1)[0]
    np.testing.assert_allclose(plain, [[1.6 / np.sqrt(3.2), 0.8 / np.sqrt(3.2)]], atol=1e-3)
    rank = expand_queries(queries, gallery, 1, weighting="rank")[0]
    np.testing.assert_allclose(rank, [[1.3 / np.sqrt(1.85), 0.4 / np.sqrt(1.85)]], atol=1e-3)


def test_models_are_brought_to_length_together_not_one_by_one() -> None:
    # The first model's neighbour points the same way, the second's the other way: only the first is left.
    queries = [np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])]
    gallery = [np.array([[1.0, 0.0]]), np.array([[0.0, -1.0]])]
    first, second = expand_queries(queries, gallery, 1, [1.0, 0.5])
    np.testing.assert_allclose(first, [[np.sqrt(1.5), 0]], atol=1e-3)
    np.testing.assert_allclose(second, [[0, 0]])


def test_a_row_is_not_its_own_neighbour_even_where_many_tie_with_it() -> None:
    gallery = [np.tile(np.array([[1.0, 0.0]]), (9, 1))]
    gallery[0][8] = [0.6, 0.8]
    asked = []

    def search(queries, rows, top_k, weights):
        asked.append(top_k)
        return np.tile(np.array([[0, 1, 8]]), (9, 1)), np.tile(np.array([[1.0, 1.0, 0.6]], np.float32), (9, 1))

    block = next(augmentation_blocks(gallery, 2, weighting="plain", search=search))
    assert asked == [3]
    expected = np.array([[1, 0], [1, 0], [1, 0], [0.6, 0.8]])
    with_last, without = [2.6, 0.8] / np.sqrt(2.6**2 + 0.64), [1, 0]
    np.testing.assert_allclose(block[0][0], with_last, atol=1e-3)  # it was first: 1 and 8 are left
    np.testing.assert_allclose(block[0][1], with_last, atol=1e-3)
    np.testing.assert_allclose(block[0][5], without, atol=1e-3)  # it is beyond the last: that one goes
    np.testing.assert_allclose(block[0][8], (2 * expected[0] + expected[3]) / np.sqrt(2.6**2 + 0.64), atol=1e-3)


def test_fewer_rows_than_neighbours_and_a_gallery_of_one_or_none() -> None:
    rows = [unit_rows(np.random.default_rng(1), 3, 4)]
    for weighting in ("plain", "rank", "alpha"):
        many = augment_gallery(rows, 50, weighting=weighting)[0]
        np.testing.assert_array_equal(many, augment_gallery(rows, 2, weighting=weighting)[0])
    np.testing.assert_allclose(augment_gallery([rows[0][:1]], 5)[0], rows[0][:1], atol=1e-3)
    assert augment_gallery([rows[0][:0]], 5)[0].shape == (0, 4)
    np.testing.assert_allclose(expand_queries(rows, [rows[0][:0]], 5)[0], rows[0], atol=1e-3)
    assert expand_queries([rows[0][:0]], rows, 5)[0].shape == (0, 4)


def test_memory_maps_and_chosen_rows_are_read_where_they_lie(tmp_path) -> None:
    rng = np.random.default_rng(2)
    np.save(tmp_path / "m4.npy", unit_rows(rng, 60, 5))
    array, rows = np.load(tmp_path / "m4.npy", mmap_mode="r"), np.array([3, 50, 5, 44, 7, 21])
    ids = rng.integers(0, 60, (6, 3))
    counts = expansion_weights(np.ones((6, 3)), "rank")
    found = collect(combine([choose(array, rows)], [array], ids, counts), [array[:6]])
    held = collect(combine([np.array(array)[rows]], [np.array(array)], ids, counts), [array[:6]])
    assert (found[0] == held[0]).all()
    turned = choose(array, np.arange(60)[::-1])
    found = collect(combine([array[:6]], [turned], 59 - ids, counts), [array[:6]])
    held = collect(combine([array[:6]], [array], ids, counts), [array[:6]])
    assert (found[0] == held[0]).all()


def test_blocks_come_as_they_are_made_and_progress_is_told() -> None:
    rng = np.random.default_rng(3)
    queries, gallery = ([unit_rows(rng, n, d) for d in (4, 6)] for n in (40, 30))
    told: list[tuple[int, int]] = []
    blocks = expansion_blocks(
        queries, gallery, 3, memory_bytes=2000, progress=lambda done, total: told.append((done, total))
    )
    first = next(blocks)
    assert [rows.shape[1] for rows in first] == [4, 6]
    assert 1 < len(first[0]) < 40
    rest = list(blocks)
    whole = expand_queries(queries, gallery, 3)
    for model in range(2):
        np.testing.assert_array_equal(np.concatenate([b[model] for b in [first, *rest]]), whole[model])
    assert told[0] == (len(first[0]), 40)
    assert told[-1] == (40, 40)


def test_similarities_keep_their_range() -> None:
    rng = np.random.default_rng(4)
    gallery, weights = [unit_rows(rng, 50, 8), unit_rows(rng, 50, 8)], [2.0, 0.5]
    augmented = augment_gallery(gallery, 4, weights)
    squares = sum(w * np.square(rows.astype(float)).sum(axis=1) for w, rows in zip(weights, augmented, strict=True))
    np.testing.assert_allclose(squares, 2.5, atol=5e-3)


ROWS = np.eye(3)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: expand_queries([ROWS], [ROWS], 0), "k: expected at least 1 neighbour, got 0"),
        (lambda: augment_gallery([ROWS], -1), "k: expected at least 1 neighbour, got -1"),
        (
            lambda: expand_queries([ROWS], [ROWS], 1, weighting="gamma"),
            "expected one of plain, rank, alpha, got 'gamma'",
        ),
        (lambda: expand_queries([ROWS], [ROWS], 1, weighting="alpha", alpha=-1), "alpha: expected a number from 0"),
        (lambda: expand_queries([ROWS], [ROWS], 1, [-1.0]), "weights: expected 1 positive numbers"),
        (lambda: expand_queries([], [], 1), "expected the features of at least one model"),
        (lambda: expand_queries([ROWS, ROWS], [ROWS], 1), "queries and gallery: expected the same models"),
        (lambda: expand_queries([ROWS], [ROWS[:, :2]], 1), r"got \[3\] and \[2\] dimensions"),
        (lambda: combine([ROWS], [ROWS], np.zeros((3, 1), int), np.ones((3, 1))), r"shapes \(3, K\) and \(3, K \+ 1\)"),
        (lambda: combine([ROWS], [ROWS], np.zeros((2, 1), int), np.ones((2, 2))), r"shapes \(3, K\) and \(3, K \+ 1\)"),
        (
            lambda: combine([ROWS], [ROWS], np.array([[0], [3], [0]]), np.ones((3, 2))),
            r"ids: row 1: expected rows of 3 neighbours, got \[3\]",
        ),
        (lambda: combine([ROWS], [ROWS], np.array([[0], [0], [-1]]), np.ones((3, 2))), "ids: row 2"),
    ],
)
def test_bad_input_is_named(call, says) -> None:
    with pytest.raises(InputError, match=says):
        call()


def test_rows_that_are_not_finite_or_cancel_are_named(tmp_path) -> None:
    rows = unit_rows(np.random.default_rng(5), 12, 4)
    broken = rows.copy()
    broken[7, 1] = np.inf
    np.save(tmp_path / "m4.npy", broken)
    array = np.load(tmp_path / "m4.npy", mmap_mode="r")
    ids, counts = np.array([[3, 7]]), np.ones((1, 3))
    with pytest.raises(InputError, match=r"m4\.npy: row 7 is not finite"):
        list(combine([rows[:1], rows[:1]], [rows, array], ids, counts))
    with pytest.raises(InputError, match=r"m4\.npy: row 7 is not finite"):
        list(combine([array[5:]], [rows], np.zeros((7, 1), int), np.ones((7, 2)), memory_bytes=1))
    opposite = np.concatenate([rows[:1], -rows[:1]])
    with pytest.raises(InputError, match="row 1 and its neighbours add up to nothing"):
        list(combine([opposite], [opposite], np.zeros((2, 1), int), np.ones((2, 2))))
