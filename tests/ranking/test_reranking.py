"""k-reciprocal re-ranking against N x N matrices in float64, by compiled loops and by torch."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.ranking.reranking import answers, feature_space, k_reciprocal, reciprocal
from harness.ranking.reranking.encoding_cpu import CpuSteps
from harness.ranking.reranking.encoding_torch import TorchSteps
from harness.ranking.reranking.feature_space import FeatureSpace
from harness.ranking.search import SearchOptions
from harness.timing import Stopwatch
from harness.types import InputError

_spec = importlib.util.spec_from_file_location("dense_reranking", Path(__file__).with_name("dense_reranking.py"))
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
dense_re_ranking = _module.dense_re_ranking

STEPS = {"one thread": lambda: CpuSteps(1), "threads": lambda: CpuSteps(3), "torch": lambda: TorchSteps("cpu", 2000)}
"""The torch ones in blocks of a few rows."""


@pytest.fixture(params=STEPS)
def steps(request, monkeypatch):
    monkeypatch.setattr(reciprocal, "_steps", lambda options: STEPS[request.param]())
    return request.param


def clustered(rng, num_queries, num_gallery, dimensions, spread, dtype):
    """Unit rows around few centres, queries and gallery alike."""
    labels = rng.integers(0, max(1, (num_queries + num_gallery) // 6), num_queries + num_gallery)
    rows = rng.normal(size=(labels.max(initial=0) + 1, dimensions))[labels]
    rows = rows + spread * rng.normal(size=rows.shape)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)
    return rows[:num_queries], rows[num_queries:]


def assert_answers(found, distances_QG, top_k, groups=None):
    """The distances are the best there are, at every place, and belong to the rows; ties stand by row.

    Ties that are none but for the rounding of sums (1e-9) may stand in any order.
    """
    ids, distances = found
    num_queries, num_gallery = distances_QG.shape
    k = min(top_k, num_gallery)
    assert ids.shape == distances.shape == (num_queries, k)
    assert ids.dtype == np.int64
    for query in range(num_queries):
        is_other = np.zeros(num_gallery, bool) if groups is None else groups[0][query] != groups[1]
        order = np.lexsort((np.arange(num_gallery), distances_QG[query], is_other))[:k]
        assert len(set(ids[query].tolist())) == k
        assert is_other[ids[query]].tolist() == is_other[order].tolist()
        np.testing.assert_allclose(distances[query], distances_QG[query, order], rtol=0, atol=1e-9)
        np.testing.assert_allclose(distances[query], distances_QG[query, ids[query]], rtol=0, atol=1e-9)
        same = (np.diff(distances[query]) == 0) & (np.diff(is_other[order].astype(int)) == 0)
        assert (np.diff(ids[query])[same] > 0).all(), "equal distances must come in the order of the gallery"
        apart = np.diff(np.sort(distances_QG[query])).min(initial=1) > 1e-9
        if apart:
            assert ids[query].tolist() == order.tolist()


@pytest.mark.parametrize("steps", STEPS)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_queries=st.integers(1, 12),
    num_gallery=st.integers(1, 60),
    dimensions=st.lists(st.integers(5, 12), min_size=1, max_size=3),
    k1=st.integers(1, 25),
    k2=st.integers(1, 9),
    lambda_value=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    top_k=st.integers(1, 25),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    spread=st.sampled_from([0.1, 0.5, 1.0]),
    is_weighted=st.booleans(),
    is_grouped=st.booleans(),
    is_few=st.booleans(),
)
def test_answers_are_those_of_the_dense_form(
    steps,
    seed,
    num_queries,
    num_gallery,
    dimensions,
    k1,
    k2,
    lambda_value,
    top_k,
    dtype,
    spread,
    is_weighted,
    is_grouped,
    is_few,
) -> None:
    rng = np.random.default_rng(seed)
    parts = [clustered(rng, num_queries, num_gallery, size, spread, dtype) for size in dimensions]
    queries, gallery = ([part[side] for part in parts] for side in (0, 1))
    weights = list(rng.uniform(0.1, 3, len(parts))) if is_weighted else None
    groups = (rng.integers(0, 3, num_queries), rng.integers(0, 3, num_gallery)) if is_grouped else None
    expected = dense_re_ranking(queries, gallery, k1, k2, lambda_value, weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reciprocal, "_steps", lambda options: STEPS[steps]())
        patch.setattr(feature_space, "is_few", lambda rows: is_few)
        found = k_reciprocal(queries, gallery, k1, k2, lambda_value, top_k, weights=weights, groups=groups)
    assert_answers(found, expected, top_k, groups)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    k1=st.integers(1, 12),
    k2=st.integers(1, 6),
    steps=st.sampled_from(list(STEPS)),
    is_few=st.booleans(),
)
def test_rows_of_whole_numbers_with_twins_keep_their_ties(seed, k1, k2, steps, is_few) -> None:
    # All products and sums are exact, so that many distances are equal, and neighbours stand by row.
    rng = np.random.default_rng(seed)
    rows = rng.integers(-2, 3, (40, 5)).astype(np.float16)
    rows[:, 0] += (rows == 0).all(axis=1)
    rows[rng.integers(0, 40, 15)] = rows[3]
    expected = dense_re_ranking([rows[:8]], [rows[8:]], k1, k2, 0.3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reciprocal, "_steps", lambda options: STEPS[steps]())
        patch.setattr(feature_space, "is_few", lambda rows: is_few)
        assert_answers(k_reciprocal(rows[:8], rows[8:], k1, k2), expected, 20)


def test_hand_worked(steps) -> None:
    # On a line through (1, 0): the query at 0, gallery at 1, 3 and 7. k1 = 1, so the first 2 of each:
    # q {q, a}, a {a, q}, b {b, a}, c {c, b}. Reciprocal: q and a with each other, b and c alone (a has not b, b has
    # not c). round(0.5) is 0: nothing joins. d of q: 0, 1/49, 9/49, 1; of a: 1/36, 0.
    rows = np.array([[1.0, 0], [1, 1], [1, 3], [1, 7]])
    e, exp = 1 / 49, np.exp
    own, other = 1 / (1 + exp(-e)), exp(-e) / (1 + exp(-e))
    a_own, a_other = 1 / (1 + exp(-1 / 36)), exp(-1 / 36) / (1 + exp(-1 / 36))
    shared = min(own, a_other) + min(other, a_own)
    ids, distances = k_reciprocal(rows[:1], rows[1:], k1=1, k2=1, lambda_value=0.25)
    assert ids.tolist() == [[0, 1, 2]]
    expected = [0.75 * (1 - shared / (2 - shared)) + 0.25 * e, 0.75 + 0.25 * 9 / 49, 1.0]
    np.testing.assert_allclose(distances, [expected], atol=1e-12)


@pytest.mark.parametrize("num_queries, num_gallery", [(0, 5), (5, 0), (0, 0), (1, 1), (3, 1)])
def test_few_rows_or_none(steps, num_queries, num_gallery) -> None:
    queries, gallery = clustered(np.random.default_rng(1), num_queries, num_gallery, 6, 0.5, np.float32)
    found = k_reciprocal(queries, gallery)
    if num_queries and num_gallery:
        assert_answers(found, dense_re_ranking([queries], [gallery], 20, 6, 0.3), 20)
    assert found[0].shape == found[1].shape == (num_queries, min(20, num_gallery))


def test_rows_that_are_all_the_same_stand_in_their_order(steps) -> None:
    ids, distances = k_reciprocal(np.ones((3, 4), np.float16), np.ones((50, 4), np.float16), k1=5)
    assert ids.shape == (3, 20)
    assert np.isfinite(distances).all()
    assert_answers((ids, distances), dense_re_ranking([np.ones((3, 4))], [np.ones((50, 4))], 5, 6, 0.3), 20)


def test_some_queries_are_answered_as_among_all(steps, monkeypatch) -> None:
    queries, gallery = clustered(np.random.default_rng(2), 30, 200, 8, 0.5, np.float16)
    groups = np.arange(30) % 3, np.arange(200) % 3
    whole = k_reciprocal(queries, gallery, groups=groups)
    monkeypatch.setattr(reciprocal, "_QUERIES", 4)
    wanted = np.array([7, 3, 3, 29, 0, 12, 11])
    some = k_reciprocal(queries, gallery, groups=groups, query_rows=wanted)
    np.testing.assert_array_equal(some[0], whole[0][wanted])
    np.testing.assert_array_equal(some[1], whole[1][wanted])
    assert k_reciprocal(queries, gallery, query_rows=np.zeros(0, np.int64))[0].shape == (0, 20)


def test_a_medium_set_in_blocks_is_as_in_one(steps, monkeypatch) -> None:
    queries, gallery = clustered(np.random.default_rng(3), 100, 700, 16, 0.6, np.float16)
    expected = dense_re_ranking([queries], [gallery], 20, 6, 0.3)
    assert_answers(k_reciprocal(queries, gallery), expected, 20)
    monkeypatch.setattr(reciprocal, "_QUERIES", 9)
    monkeypatch.setattr(reciprocal, "_PAIRS", 50)
    monkeypatch.setattr("harness.ranking.reranking.encoding_cpu._ROWS", 30)
    assert_answers(k_reciprocal(queries, gallery), expected, 20)


def test_bounds_spare_most_distances_and_nearest_rows_are_asked_for_where_they_prove_nothing(monkeypatch) -> None:
    queries, gallery = clustered(np.random.default_rng(4), 40, 400, 16, 0.4, np.float16)
    measured, asked = [], []
    distances, nearest_gallery = FeatureSpace.distances, FeatureSpace.nearest_gallery

    def counted(space, rows, others):
        measured.append(len(rows))
        return distances(space, rows, others)

    def noted(space, query_rows, *rest):
        asked.append(len(query_rows))
        return nearest_gallery(space, query_rows, *rest)

    monkeypatch.setattr(FeatureSpace, "distances", counted)
    monkeypatch.setattr(FeatureSpace, "nearest_gallery", noted)
    k_reciprocal(queries, gallery, top_k=3)
    assert not asked
    assert sum(measured) < 400 * 10
    k_reciprocal(queries, gallery, top_k=300)
    assert sum(asked) == 40


def test_memory_maps_and_choices_of_rows_are_read_where_they_lie(tmp_path) -> None:
    queries, gallery = clustered(np.random.default_rng(5), 20, 90, 8, 0.5, np.float16)
    np.save(tmp_path / "vectors.npy", np.concatenate([gallery, queries])[::-1])
    array = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    from harness.ranking.rows import choose

    chosen = choose(array, np.arange(19, -1, -1)), choose(array, np.arange(109, 19, -1))
    found, expected = k_reciprocal(*chosen), k_reciprocal(queries, gallery)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    some = k_reciprocal(*chosen, top_k=70, query_rows=np.array([4, 2]))
    np.testing.assert_array_equal(some[0], k_reciprocal(queries, gallery, top_k=70)[0][[4, 2]])


def test_phases_are_timed_and_progress_ends(steps) -> None:
    queries, gallery = clustered(np.random.default_rng(6), 20, 90, 8, 0.5, np.float16)
    told, watch = [], Stopwatch()
    k_reciprocal(queries, gallery, progress=lambda done, total: told.append((done, total)), stopwatch=watch)
    assert [entry.stage for entry in watch.stages] == ["neighbours", "sets", "expansion", "answers"]
    assert told[-1] == (130, 130)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_torch_is_chosen_by_device() -> None:
    assert isinstance(reciprocal._steps(SearchOptions(devices=("cuda:1", "cuda:2"))), TorchSteps)
    assert reciprocal._steps(SearchOptions(devices=("cuda:1",))).device == "cuda:1"
    chosen = reciprocal._steps(SearchOptions(devices=("cpu",), num_threads=3))
    assert isinstance(chosen, CpuSteps)
    assert chosen.num_threads == 3


@pytest.mark.gpu
def test_a_gpu_gives_the_same() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    queries, gallery = clustered(np.random.default_rng(7), 200, 1500, 32, 0.5, np.float16)
    ours = k_reciprocal(queries, gallery, options=SearchOptions(devices=("cuda:0",)))
    theirs = k_reciprocal(queries, gallery, options=SearchOptions(devices=("cpu",)))
    np.testing.assert_allclose(ours[1], theirs[1], rtol=0, atol=1e-9)
    assert (ours[0] == theirs[0]).mean() > 0.999


ROWS = np.eye(6, dtype=np.float32)
NOT_FINITE = np.array([[1.0, 0], [np.nan, 1], [0, 1]])
ZERO = np.array([[1.0, 0], [0, 1], [0, 0]])


@pytest.mark.parametrize(
    "arguments, options, says",
    [
        ((ROWS, ROWS), {"k1": 0}, "k1 of at least 1, got 0"),
        ((ROWS, ROWS), {"k2": 0}, "k2 of at least 1, got 0"),
        ((ROWS, ROWS), {"top_k": 0}, "top_k of at least 1, got 0"),
        ((ROWS, ROWS), {"lambda_value": -0.1}, "lambda between 0 and 1, got -0.1"),
        ((ROWS, ROWS), {"lambda_value": 1.1}, "lambda between 0 and 1, got 1.1"),
        ((ROWS, ROWS), {"lambda_value": float("nan")}, "lambda between 0 and 1, got nan"),
        (([], []), {}, "got 0 and 0"),
        (([ROWS], [ROWS, ROWS]), {}, "got 1 and 2"),
        ((ROWS, ROWS[:, :3]), {}, r"model 0: expected .* got \(6, 6\) and \(6, 3\)"),
        ((ROWS[0], ROWS[0]), {}, r"got \(6,\) and \(6,\)"),
        ((ROWS[:, :0], ROWS[:, :0]), {}, "at least 1"),
        (([ROWS, ROWS[:2]], [ROWS, ROWS]), {}, "model 1 has 2 queries and 6 gallery rows, model 0 has 6 and 6"),
        ((ROWS.astype(int), ROWS), {}, "floating type, got int64"),
        ((ROWS, ROWS), {"weights": [0.0]}, "weights above 0"),
        ((ROWS, ROWS), {"weights": [1.0, 1.0]}, "expected 1 weights"),
        ((ZERO[:2], NOT_FINITE), {}, "gallery of model 0: row 1 has a number that is not finite"),
        ((NOT_FINITE, ZERO[:2]), {}, "queries of model 0: row 1 has a number that is not finite"),
        ((NOT_FINITE.astype(np.float16), ZERO[:2]), {}, "queries of model 0: row 1 has a number that is not finite"),
        ((ZERO[:2].astype(np.float16), ZERO.astype(np.float16)), {}, "gallery of model 0: row 2 is zero"),
        ((ROWS.astype(float) * 1e200, ROWS), {}, "queries of model 0: row 0 is too long"),
        (([ZERO[:2]] * 2, [ZERO[[0, 1, 1]], ZERO]), {}, "gallery of model 1: row 2 is zero"),
        ((ROWS, ROWS), {"query_rows": np.array([0, 6])}, "rows of the 6 queries, from 0 on, got 6"),
        ((ROWS, ROWS), {"query_rows": np.array([-1])}, "got -1"),
        ((ROWS, ROWS), {"query_rows": np.array([0.5])}, "query_rows: expected integers, got float64"),
        ((ROWS, ROWS), {"groups": (np.zeros(6, int), np.zeros(5, int))}, "groups of the gallery: expected 6 integers"),
        ((ROWS, ROWS), {"groups": (np.zeros(6), np.zeros(6, int))}, "groups of the queries: expected 6 integers"),
    ],
)
def test_bad_input_is_named(arguments, options, says) -> None:
    with pytest.raises(InputError, match=says):
        k_reciprocal(*arguments, **options)


def test_a_bad_row_of_a_file_is_named(tmp_path) -> None:
    np.save(tmp_path / "m4.npy", NOT_FINITE.astype(np.float16))
    array = np.load(tmp_path / "m4.npy", mmap_mode="r")
    with pytest.raises(InputError, match=r"m4\.npy: row 1 has a number that is not finite"):
        k_reciprocal(array[:1], array[1:])


def test_long_rows_in_half_precision_are_no_error() -> None:
    rows = (np.eye(6) * 60000 + 3000).astype(np.float16)
    assert_answers(k_reciprocal(rows[:2], rows[2:], 2, 1), dense_re_ranking([rows[:2]], [rows[2:]], 2, 1, 0.3), 20)


def test_own_rows_of_a_group() -> None:
    groups = answers.Groups(np.array([5, 2, 9, 2]), np.array([2, 5, 2, 7]))
    assert groups.own_rows(np.array([0, 1, 2, 3, 0])).tolist() == [1, 2, 0, 2, 1]
