"""Exact search against a brute-force oracle in float64."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.ranking.rows import ChosenRows
from harness.ranking.search import SearchOptions, nearest, neighbours, pool, products, similarities_of, working_bytes
from harness.ranking.search import passes as search_pass
from harness.ranking.search import planning as search_plan
from harness.ranking.search.blocks import CPU_UNIT, Lengths, error_bound, rounded_block
from harness.ranking.search.exact import Workers
from harness.ranking.search.products import DeviceProducts
from harness.types import InputError

TINY = SearchOptions(memory_bytes=20_000)  # blocks of a few rows
WAYS = [
    SearchOptions(engine="torch", precision="32"),
    SearchOptions(engine="torch", precision="16"),
    SearchOptions(engine="torch", precision="bf16"),
    SearchOptions(engine="faiss"),
]


def all_similarities(queries, gallery, weights):
    """(Q, G) in float64, every pair summed in the same order."""
    total = np.zeros((len(queries[0]), len(gallery[0])))
    for query, rows, weight in zip(queries, gallery, weights or [1.0] * len(queries), strict=True):
        total += weight * np.einsum("qd,gd->qg", query[:].astype(float), rows[:].astype(float))
    return total


def features(rng, num_rows, dimensions, dtype, kind):
    rows = rng.normal(size=(num_rows, dimensions))
    if kind == "clustered":
        rows = rng.normal(size=(5, dimensions))[rng.integers(5, size=num_rows)] + 0.003 * rows
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    if kind == "long and short":
        rows *= 10.0 ** rng.integers(-3, 4, size=(num_rows, 1))
    if kind == "duplicates" and num_rows > 2:
        rows[rng.integers(num_rows, size=num_rows // 2)] = rows[0]
    return rows.astype(dtype)


KINDS = ["random", "clustered", "long and short", "duplicates"]


def assert_is_the_oracles(ids, similarities, queries, gallery, top_k, weights) -> None:
    sims_QG = all_similarities(queries, gallery, weights)
    expected_ids = np.argsort(-sims_QG, axis=1, kind="stable")[:, :top_k]
    assert ids.shape == similarities.shape == expected_ids.shape
    assert ids.dtype == np.int64
    expected = np.take_along_axis(sims_QG, expected_ids, axis=1)
    size = 1 + np.abs(sims_QG).max(initial=0)
    tolerance = 1e-6 if similarities.dtype == np.float32 else 1e-13
    np.testing.assert_allclose(similarities, expected, rtol=1e-6, atol=tolerance * size)
    # Two different rows whose sums differ in the last bits of float64 may stand in either order.
    np.testing.assert_allclose(np.take_along_axis(sims_QG, ids, axis=1), expected, rtol=0, atol=1e-13 * size)
    for row in range(len(ids)):
        assert len(set(ids[row])) == len(ids[row])
        rows = np.concatenate([part[:][ids[row]] for part in gallery], axis=1)
        same = (np.diff(rows.astype(float), axis=0) == 0).all(axis=1)
        assert (np.diff(ids[row])[same] > 0).all(), "equal rows must come in the order of the gallery"


SHAPES = {
    "seed": st.integers(0, 10**6),
    "num_queries": st.integers(0, 9),
    "num_gallery": st.integers(0, 60),
    "dimensions": st.lists(st.integers(1, 40), min_size=1, max_size=4),
    "top_k": st.integers(1, 25),
    "dtype": st.sampled_from([np.float16, np.float32, np.float64]),
    "kind": st.sampled_from(KINDS),
    "weighted": st.booleans(),
}


def drawn(seed, num_queries, num_gallery, dimensions, dtype, kind, weighted):
    rng = np.random.default_rng(seed)
    shared = int(rng.integers(1 << 30))  # every model repeats the same rows, so that whole rows tie
    queries = [features(np.random.default_rng(shared), num_queries, d, dtype, kind) for d in dimensions]
    gallery = [features(np.random.default_rng(shared), num_gallery, d, dtype, kind) for d in dimensions]
    return queries, gallery, list(rng.uniform(0.1, 3, len(dimensions))) if weighted else None


@pytest.mark.parametrize("options", WAYS, ids=lambda way: f"{way.engine}-{way.precision}")
@settings(max_examples=60, deadline=None)
@given(**SHAPES, memory=st.sampled_from([None, 3_000, 30_000]), devices=st.sampled_from([None, ("cpu", "cpu")]))
def test_ids_and_similarities_are_the_oracles(
    options, seed, num_queries, num_gallery, dimensions, top_k, dtype, kind, weighted, memory, devices
) -> None:
    queries, gallery, weights = drawn(seed, num_queries, num_gallery, dimensions, dtype, kind, weighted)
    options = replace(options, memory_bytes=memory, devices=devices)
    ids, similarities = nearest(queries, gallery, top_k, weights, options=options)
    assert_is_the_oracles(ids, similarities, queries, gallery, top_k, weights)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(**SHAPES, num_threads=st.integers(1, 5), memory=st.sampled_from([None, 3_000]))
def test_lanes_that_share_their_candidates_find_what_the_oracle_finds(
    monkeypatch, seed, num_queries, num_gallery, dimensions, top_k, dtype, kind, weighted, num_threads, memory
) -> None:
    queries, gallery, weights = drawn(seed, num_queries, num_gallery, dimensions, dtype, kind, weighted)
    for name, size in (("_LEAST_LANE_ROWS", 1), ("_LANE_ROWS", 4), ("_SPARE", 3)):  # they often have to make room
        monkeypatch.setattr(search_plan, name, size)
    monkeypatch.setattr(pool, "_HITS", 5)
    options = SearchOptions(precision="bf16", devices=("cpu",), num_threads=num_threads, memory_bytes=memory)
    found = neighbours(queries, gallery, top_k, weights, options=options)
    assert_is_the_oracles(found.ids, found.similarities, queries, gallery, top_k, weights)
    if num_gallery:
        lowest = all_similarities(queries, gallery, weights).min(axis=1)
        np.testing.assert_allclose(found.lowest, lowest, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("num_threads, lanes", [(1, (1, 1)), (2, (2, 1)), (64, (10, 6))])
def test_there_are_as_many_lanes_as_have_room_for_blocks(monkeypatch, num_threads, lanes) -> None:
    monkeypatch.setattr(search_plan, "has_bf16_units", lambda: True)
    options = SearchOptions(precision="bf16", devices=("cpu",), num_threads=num_threads, memory_bytes=1 << 28)
    plan = search_plan.plan_search(1000, 20_000, [1024] * 16, 20, options, is_half=True)
    assert (plan.lanes, plan.lane_threads) == lanes
    assert 150 <= plan.gallery_rows <= 512
    assert -(-20_000 // plan.gallery_rows) % plan.lanes == 0, "every lane takes as many blocks"
    assert plan.host_bytes < options.memory_bytes


def test_a_cpu_without_units_for_bfloat16_multiplies_in_float32(monkeypatch) -> None:
    monkeypatch.setattr(search_plan, "has_bf16_units", lambda: False)
    options = SearchOptions(precision="bf16", devices=("cpu",))
    assert search_plan.plan_search(5, 5, [8], 2, options, is_half=True).precision == "32"


def test_a_row_that_fails_in_one_lane_stops_the_others(monkeypatch) -> None:
    monkeypatch.setattr(search_plan, "_LEAST_LANE_ROWS", 1)
    monkeypatch.setattr(search_plan, "_LANE_ROWS", 1)
    rows = np.ones((500, 3), np.float16)
    rows[1] = 0
    done: list[int] = []
    options = SearchOptions(precision="bf16", devices=("cpu",), num_threads=2)
    with pytest.raises(InputError, match="gallery: row 1 is all zeros"):
        nearest([rows[:1]], [rows], 1, options=options, progress=lambda count, _: done.append(count))
    assert len(done) < 499


@pytest.mark.parametrize("precision", ["32", "16", "bf16"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(**SHAPES, keep_bytes=st.sampled_from([0, 10_000, 10**9]), memory=st.sampled_from([None, 3_000]))
def test_what_runs_on_a_gpu_finds_the_same_on_a_cpu(
    monkeypatch, precision, seed, num_queries, num_gallery, dimensions, top_k, dtype, kind, weighted, keep_bytes, memory
) -> None:
    queries, gallery, weights = drawn(seed, num_queries, num_gallery, dimensions, dtype, kind, weighted)

    def engine(parts, scale, plan, device, workers):
        return DeviceProducts(parts, scale, replace(plan, precision=precision), device, keep_bytes)

    monkeypatch.setattr(search_pass, "_engine", engine)
    found = neighbours(queries, gallery, top_k, weights, options=SearchOptions(memory_bytes=memory))
    assert_is_the_oracles(found.ids, found.similarities, queries, gallery, top_k, weights)
    if num_gallery:
        expected = all_similarities(queries, gallery, weights).min(axis=1)
        np.testing.assert_allclose(found.lowest, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("options", WAYS, ids=lambda way: f"{way.engine}-{way.precision}")
@settings(max_examples=25, deadline=None)
@given(**SHAPES, memory=st.sampled_from([None, 3_000]))
def test_neighbours_have_the_lowest_similarity_too(
    options, seed, num_queries, num_gallery, dimensions, top_k, dtype, kind, weighted, memory
) -> None:
    queries, gallery, weights = drawn(seed, num_queries, num_gallery, dimensions, dtype, kind, weighted)
    found = neighbours(queries, gallery, top_k, weights, options=replace(options, memory_bytes=memory))
    assert_is_the_oracles(found.ids, found.similarities, queries, gallery, top_k, weights)
    assert found.similarities.dtype == found.lowest.dtype == np.float64
    if num_gallery == 0:
        assert np.isnan(found.lowest).all()
        return
    every = np.indices((num_queries, num_gallery)).reshape(2, -1)
    pairs = similarities_of(queries, gallery, *every, weights).reshape(num_queries, num_gallery)
    np.testing.assert_allclose(pairs, all_similarities(queries, gallery, weights), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(found.lowest, pairs.min(axis=1))
    np.testing.assert_array_equal(found.similarities, np.take_along_axis(pairs, found.ids, axis=1))


def test_a_gallery_of_equal_rows_is_answered_in_row_order_whatever_the_blocks() -> None:
    gallery = np.tile(np.array([[0.6, 0.0, 0.8]], np.float16), (2500, 1))
    gallery[321] = [0.0, 1.0, 0.0]
    queries = [np.array([[0.0, 0.6, 0.8]], np.float32)]
    for options in (TINY, *WAYS):  # far more candidates than are kept
        ids, _ = nearest(queries, [gallery], 20, options=options)
        assert ids.tolist() == [list(range(20))]


def test_a_difference_that_float32_cannot_see_still_decides() -> None:
    # 40 rows whose similarities differ by 1e-9: float32 calls them equal, float64 does not.
    gallery = np.zeros((40, 2), np.float64)
    gallery[:, 0] = 1 - 1e-9 * np.arange(40)[::-1]
    for options in WAYS:
        ids, _ = nearest([np.array([[1.0, 0.0]])], [gallery], 5, options=options)
        assert ids.tolist() == [[39, 38, 37, 36, 35]]


def test_a_difference_that_bfloat16_turns_around_is_put_right() -> None:
    # The first row is rounded up to 2.0078, the second, which is more similar, down to 2.
    gallery = [np.array([[1 + 2**-8 + 2**-10, 1], [1 + 2**-8 - 2**-10] * 2], np.float16)]
    ids, sims = nearest([np.ones((1, 2), np.float16)], gallery, 1, options=SearchOptions(precision="bf16"))
    assert (ids.tolist(), sims.tolist()) == ([[1]], [[2 + 2**-7 - 2**-9]])


def test_it_is_the_bound_that_puts_right_what_rounding_turns_around(monkeypatch) -> None:
    # In float32 the first row is 1.25 + 2^-23, the second, which is more similar, 1.25.
    gallery = [np.array([[1 + 2**-24 + 2**-30, 0.25], [1 + 2**-24 - 2**-30, 0.25 + 2**-26 - 2**-32]])]
    queries, options = [np.ones((1, 2))], SearchOptions(precision="32", devices=("cpu",))
    assert nearest(queries, gallery, 1, options=options)[0].tolist() == [[1]]
    monkeypatch.setattr(products, "error_bound", lambda *_: np.zeros(1))
    assert nearest(queries, gallery, 1, options=options)[0].tolist() == [[0]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("out_dtype", [np.uint16, np.float32])
def test_rounding_takes_no_more_than_is_said(dtype, out_dtype) -> None:
    rng = np.random.default_rng(5)
    parts = [[features(rng, 40, size, dtype, "long and short") for size in (300, 7)] for _ in range(2)]
    scale, rows, blocks, lengths = np.array([1.0, 0.3]), np.arange(40), [], []
    with ThreadPoolExecutor(2) as pool:
        for side, weights, part in (("queries", scale, parts[0]), ("gallery", None, parts[1])):
            block = np.zeros((40, 320), out_dtype)
            lengths.append(rounded_block(part, rows, weights, block, side, Workers(2, pool)))
            blocks.append((block.astype(np.uint32) << 16).view(np.float32) if out_dtype == np.uint16 else block)
    exact = all_similarities(*parts, list(scale))
    off = np.abs(blocks[0].astype(float) @ blocks[1].astype(float).T - exact)
    for row in range(40):
        of_row = Lengths(lengths[1].whole[row : row + 1], lengths[1].lost[row : row + 1])
        bound = error_bound(lengths[0], of_row, 0, CPU_UNIT)
        size = lengths[0].whole @ of_row.whole[0]
        assert (off[:, row] <= bound + 1e-14 * size).all()  # the sums of the reference round as well
        step = 2**-8 if out_dtype == np.uint16 else 2**-24
        assert (bound <= 2.02 * step * size + 1e-30).all(), "no longer than the largest rounding of every number"
    summed = np.abs(blocks[0] @ blocks[1].T - blocks[0].astype(float) @ blocks[1].astype(float).T)
    nothing = [Lengths(each.whole, np.zeros_like(each.lost)) for each in lengths]
    assert (summed.max(axis=1) <= error_bound(nothing[0], nothing[1].longest(), 328, CPU_UNIT) * 1.01).all()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32", "16", "bf16"])
@pytest.mark.parametrize("engine", ["torch", "faiss"])
def test_a_gpu_finds_what_the_cpu_finds(engine, precision) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    rng = np.random.default_rng(6)
    queries = [features(rng, 300, size, np.float16, "clustered") for size in (1024, 2048, 3000)]
    gallery = [features(rng, 5000, size, np.float16, "clustered") for size in (1024, 2048, 3000)]
    options = SearchOptions(engine=engine, precision="auto" if engine == "faiss" else precision, devices=("cuda:0",))
    found = neighbours(queries, gallery, 20, options=options)
    expected = neighbours(queries, gallery, 20, options=SearchOptions(devices=("cpu",)))
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.lowest, expected.lowest)


@pytest.mark.filterwarnings("ignore:overflow")  # of the similarities' float32
@pytest.mark.parametrize("size", [1e-30, 1e-60, 1e30, 1e100])
@pytest.mark.parametrize("options", WAYS, ids=lambda way: f"{way.engine}-{way.precision}")
def test_numbers_that_leave_float32_are_searched_all_the_same(size, options) -> None:
    rng = np.random.default_rng(2)
    queries, gallery = [size * rng.normal(size=(4, 6))], [rng.normal(size=(70, 6)) * rng.choice([1, size], (70, 1))]
    ids, _ = nearest(queries, gallery, 7, options=options)
    expected = np.argsort(-all_similarities(queries, gallery, None), axis=1, kind="stable")[:, :7]
    np.testing.assert_array_equal(ids, expected)


def test_small_blocks_give_the_same_answer() -> None:
    rng = np.random.default_rng(3)
    queries, gallery = [features(rng, 50, 8, np.float16, "random")], [features(rng, 900, 8, np.float16, "duplicates")]
    whole = nearest(queries, gallery, 20)
    np.testing.assert_array_equal(nearest(queries, gallery, 20, options=TINY)[0], whole[0])


def test_memory_maps_and_chosen_rows_are_read_where_they_lie(tmp_path) -> None:
    rng = np.random.default_rng(4)
    rows, chosen = features(rng, 300, 24, np.float16, "random"), rng.permutation(300)[:120]
    np.save(tmp_path / "vectors.npy", rows)
    stored = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    found = nearest([ChosenRows(stored, chosen[:20])], [ChosenRows(ChosenRows(stored, chosen), np.arange(20, 120))], 9)
    expected = nearest([rows[chosen[:20]]], [rows[chosen[20:]]], 9)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@settings(max_examples=40, deadline=None)
@given(**SHAPES, num_groups=st.integers(1, 6))
def test_rows_of_the_querys_own_group_come_first(
    seed, num_queries, num_gallery, dimensions, top_k, dtype, kind, weighted, num_groups
) -> None:
    queries, gallery, weights = drawn(seed, num_queries, num_gallery, dimensions, dtype, kind, weighted)
    rng = np.random.default_rng(seed)
    groups = rng.integers(num_groups, size=num_queries), rng.integers(num_groups + 2, size=num_gallery)
    ids, similarities = nearest(queries, gallery, top_k, weights, groups=groups)
    every = np.indices((num_queries, num_gallery)).reshape(2, -1)
    sims_QG = similarities_of(queries, gallery, *every, weights).reshape(num_queries, num_gallery)
    for query in range(num_queries):
        is_other = groups[1] != groups[0][query]
        expected = np.lexsort((np.arange(num_gallery), -sims_QG[query], is_other))[:top_k]
        assert ids[query].tolist() == expected.tolist()
        np.testing.assert_array_equal(similarities[query], sims_QG[query, expected].astype(np.float32))


def test_groups_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"one a query and one a gallery row, \(1,\) and \(3,\)"):
        nearest([np.ones((1, 2))], [np.ones((3, 2))], 1, groups=(np.zeros(2, int), np.zeros(3, int)))


def test_progress_ends_with_everything_done() -> None:
    calls: list[tuple[int, int]] = []
    rows = [features(np.random.default_rng(0), 90, 8, np.float16, "random")]
    nearest(rows, rows, 3, options=TINY, progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == list(range(1, calls[-1][1] + 1))
    assert len(calls) > 1


def test_torch_is_left_as_it_was() -> None:
    import torch

    before = torch.get_num_threads(), torch.backends.mkldnn.matmul.fp32_precision
    nearest([np.ones((1, 2))], [np.ones((3, 2))], 1, options=SearchOptions(num_threads=1))
    with pytest.raises(InputError):
        nearest([np.ones((1, 2))], [np.zeros((3, 2))], 1, options=SearchOptions(num_threads=1))
    assert before == (torch.get_num_threads(), torch.backends.mkldnn.matmul.fp32_precision)


@pytest.mark.parametrize(
    "queries, gallery, top_k, weights, says",
    [
        ([], [], 1, None, "one query and one gallery array"),
        ([np.ones((1, 2))], [np.ones((1, 3))], 1, None, "shapes"),
        ([np.ones((1, 2)), np.ones((2, 2))], [np.ones((3, 2))] * 2, 1, None, "do not match"),
        ([np.ones((1, 2))], [np.ones((3, 2))], 0, None, "top_k"),
        ([np.ones((1, 2))], [np.ones((3, 2))], 1, [-1.0], "positive weights"),
        ([np.ones((1, 2))], [np.ones((3, 2), np.int64)], 1, None, "floating numbers, got int64"),
        ([np.ones((1, 2))], [np.array([[1, 2], [np.nan, 0]])], 1, None, "gallery: row 1 is not finite"),
        ([np.ones((1, 2))], [np.array([[1, 2], [-np.inf, 0]], np.float16)], 1, None, "gallery: row 1 is not finite"),
        ([np.array([[np.inf, 0]])], [np.ones((3, 2))], 1, None, "queries: row 0 is not finite"),
        ([np.ones((1, 2))], [np.array([[1, 2], [0, 0]], np.float16)], 1, None, "gallery: row 1 is all zeros"),
        ([np.zeros((1, 2))], [np.ones((3, 2))], 1, None, "queries: row 0 is all zeros"),
    ],
)
@pytest.mark.parametrize("options", WAYS, ids=lambda way: f"{way.engine}-{way.precision}")
def test_bad_input_is_named(queries, gallery, top_k, weights, says, options) -> None:
    with pytest.raises(InputError, match=says):
        nearest(queries, gallery, top_k, weights, options=options)


def test_a_zero_in_one_dimension_is_a_number_like_others() -> None:
    ids, _ = nearest([np.array([[0.0], [2.0]])], [np.array([[-1.0], [0.0], [3.0]])], 3)
    assert ids.tolist() == [[0, 1, 2], [2, 1, 0]]


@pytest.mark.parametrize(
    "options, says",
    [
        (SearchOptions(engine="annoy"), "auto, torch, faiss"),
        (SearchOptions(precision="8"), "auto, 32, 16, bf16"),
        (SearchOptions(engine="faiss", precision="bf16"), "use engine torch"),
        (SearchOptions(devices=("cuda:77",)), "cuda:77"),
        (SearchOptions(devices=()), "got none"),
        (SearchOptions(memory_bytes=0), "memory_bytes"),
        (SearchOptions(num_threads=0), "num_threads"),
    ],
)
def test_an_option_that_is_not_possible_is_named(options, says) -> None:
    with pytest.raises(InputError, match=says):
        nearest([np.ones((1, 2))], [np.ones((3, 2))], 1, options=options)


def test_a_file_and_its_row_are_named(tmp_path) -> None:
    rows = np.ones((9, 4), np.float16)
    rows[5] = 0
    np.save(tmp_path / "vectors.npy", rows)
    stored = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    with pytest.raises(InputError, match=r"vectors\.npy: row 5 is all zeros"):
        nearest([rows[:1]], [ChosenRows(stored, np.array([1, 5, 2]))], 1)


@pytest.mark.parametrize("rows", [([0, 1], [0]), ([2], [0]), ([0], [-1])])
def test_pairs_that_are_not_there_are_refused(rows) -> None:
    with pytest.raises(InputError, match="pairs"):
        similarities_of([np.ones((2, 2))], [np.ones((3, 2))], *map(np.array, rows))


def test_no_pairs_have_no_similarities() -> None:
    nothing = np.zeros(0, np.int64)
    assert similarities_of([np.ones((2, 2))], [np.ones((3, 2))], nothing, nothing).shape == (0,)


def test_more_memory_is_said_for_a_wider_search_and_none_beyond_what_is_allowed() -> None:
    small, large = (SearchOptions(memory_bytes=size, devices=("cpu",)) for size in (64 << 20, 512 << 20))
    wide = [1024] * 16
    assert working_bytes(100_000, 400_000, wide, 20, small) < working_bytes(100_000, 400_000, wide, 20, large)
    assert working_bytes(100_000, 400_000, wide, 20, small) < (64 + 64 + 24) << 20
    assert working_bytes(10, 10, [8], 5) < 65 << 20


@pytest.mark.parametrize("wrong", [np.eye(3, dtype=np.float32), [[1.0, 0.0]]])
def test_one_array_where_a_list_of_them_is_wanted_is_told(wrong) -> None:
    right = [np.eye(3, dtype=np.float32)]
    for arguments in ((wrong, right), (right, wrong)):
        with pytest.raises(InputError, match="expected a list of arrays"):
            nearest(*arguments, 2)
