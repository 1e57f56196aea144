"""Principal components against a singular value decomposition in float64 of the whole concatenation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.ranking import principal, stacks
from harness.ranking.rows import choose
from harness.ranking.whitening import Projection, fit_bytes, fit_projection
from harness.types import InputError


def unit_rows(rng, num_rows, dimensions, dtype=np.float16, fall=0.7):
    """Rows whose dimensions vary less and less, turned at random, and off the origin as embeddings are."""
    scales = (1 + np.arange(dimensions)) ** -fall
    turned = np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0]
    rows = (rng.normal(size=(num_rows, dimensions)) * scales + 0.3 / np.sqrt(dimensions)) @ turned
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)


def joined(parts, weights=None):
    scales = np.sqrt(np.ones(len(parts)) if weights is None else weights)
    return np.concatenate(
        [scale * np.asarray(part[:], np.float64) for scale, part in zip(scales, parts, strict=True)], axis=1
    )


def oracle(parts, weights=None):
    """Mean, components (one a column) and variances."""
    rows = joined(parts, weights)
    mean = rows.mean(axis=0)
    _, lengths, directions = np.linalg.svd(rows - mean, full_matrices=False)
    return mean, directions.T, lengths**2 / (len(rows) - 1)


def same_space(one, two):
    """The smallest cosine between the subspaces of two sets of orthonormal columns."""
    return np.linalg.svd(one.T @ two, compute_uv=False).min()


CASES = [
    pytest.param(300, (12, 20), 7, id="more rows than dimensions"),
    pytest.param(25, (12, 20), 7, id="fewer rows than dimensions"),
    pytest.param(33, (33,), 32, id="all that there are"),
]


@pytest.mark.parametrize("num_rows, widths, wanted", CASES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_components_and_variances_are_the_oracles(num_rows, widths, wanted, dtype) -> None:
    rng = np.random.default_rng(1)
    parts, weights = (
        [unit_rows(rng, num_rows, width, dtype) for width in widths],
        list(rng.uniform(0.2, 3, len(widths))),
    )
    fitted = fit_projection(parts, wanted, whiten=False, weights=weights)
    mean, directions, variances = oracle(parts, weights)
    np.testing.assert_allclose(fitted.mean, mean, atol=1e-6)
    np.testing.assert_allclose(fitted.variances, variances[:wanted], rtol=1e-6)
    np.testing.assert_allclose(np.abs((fitted.components * directions[:, :wanted]).sum(axis=0)), 1, atol=1e-4)
    np.testing.assert_allclose(fitted.components.T @ fitted.components, np.eye(wanted), atol=1e-5)
    assert fitted.explained == pytest.approx(variances[:wanted].sum() / variances.sum())
    assert fitted.num_samples == num_rows
    projected = (joined(parts, weights) - mean) @ fitted.components
    expected = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    found = fitted.apply(parts)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_rows=st.integers(2, 40),
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    whiten=st.booleans(),
    memory_bytes=st.sampled_from([1, 300, 10_000]),
)
def test_rows_of_any_shape_are_projected_to_unit_length_in_blocks_of_any_size(
    seed, num_rows, widths, whiten, memory_bytes
) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=(num_rows, width)).astype(np.float32) for width in widths]
    most = min(num_rows - 1, sum(widths))
    fitted = fit_projection(parts, None, whiten=whiten, seed=seed)
    assert fitted.dimensions == most
    assert (np.diff(fitted.variances) <= 0).all()
    found = fitted.apply(parts, memory_bytes=memory_bytes)
    assert found.shape == (num_rows, most)
    np.testing.assert_allclose(np.linalg.norm(found.astype(np.float64), axis=1), 1, atol=2e-3)
    np.testing.assert_allclose(found, fitted.apply(parts), atol=2e-3)


def test_all_components_keep_centred_distances() -> None:
    rng = np.random.default_rng(2)
    parts = [unit_rows(rng, 80, 6, np.float64), unit_rows(rng, 80, 9, np.float64)]
    fitted = fit_projection(parts, None, whiten=False, weights=[2.0, 0.5])
    rows = joined(parts, [2.0, 0.5])
    turned = (rows - fitted.mean) @ fitted.components
    distances = np.linalg.norm(turned[:, None] - turned[None], axis=2)
    np.testing.assert_allclose(distances, np.linalg.norm(rows[:, None] - rows[None], axis=2), atol=1e-6)
    np.testing.assert_allclose(
        np.linalg.norm(turned, axis=1), np.linalg.norm(rows - rows.mean(axis=0), axis=1), atol=1e-6
    )


@pytest.mark.parametrize("num_rows, wanted", [(300, None), (300, 5), (25, 5)])
def test_whitened_features_have_unit_covariance_before_they_get_unit_length(num_rows, wanted) -> None:
    rng = np.random.default_rng(3)
    parts = [unit_rows(rng, num_rows, 12), unit_rows(rng, num_rows, 20)]
    fitted = fit_projection(parts, wanted, whiten=True, shrinkage=0)
    whitened = (joined(parts) - fitted.mean) @ fitted.components
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(fitted.dimensions), atol=1e-3)


def test_shrinkage_draws_variances_towards_their_mean() -> None:
    rng = np.random.default_rng(4)
    parts = [unit_rows(rng, 200, 10)]
    _, _, variances = oracle(parts)
    fitted = fit_projection(parts, 4, whiten=True, shrinkage=0.25)
    lengths = np.linalg.norm(fitted.components, axis=0)
    np.testing.assert_allclose(lengths, (0.75 * variances[:4] + 0.25 * variances.mean()) ** -0.5, rtol=1e-4)
    plain = fit_projection(parts, 4, whiten=False)
    whole = fit_projection(parts, 4, whiten=True, shrinkage=1)
    np.testing.assert_allclose(whole.apply(parts), plain.apply(parts), atol=1e-3)


def test_dimensions_that_never_vary_do_not_become_noise() -> None:
    rng = np.random.default_rng(5)
    part = unit_rows(rng, 100, 6, np.float32)
    constant = np.concatenate([part, np.full((100, 1), 0.25, np.float32), part[:, :1]], axis=1)
    for shrinkage in (0, 1e-2):
        fitted = fit_projection([constant], None, whiten=True, shrinkage=shrinkage)
        assert fitted.dimensions == 8
        assert (fitted.components[:, 6:] == 0).all()
        assert np.isfinite(fitted.apply([constant])).all()


def test_many_equal_rows_have_few_components_and_no_noise() -> None:
    rows = unit_rows(np.random.default_rng(6), 4, 40, np.float32)[np.arange(20) % 4]
    fitted = fit_projection([rows], 10, whiten=True, shrinkage=0)
    assert (np.linalg.norm(fitted.components, axis=0) > 0).sum() == 3
    found = fitted.apply([rows]).astype(np.float64)
    np.testing.assert_allclose(found[:4], found[4:8], atol=1e-3)


def test_the_largest_entry_of_a_component_is_positive_so_that_two_fits_agree() -> None:
    rng = np.random.default_rng(7)
    parts = [unit_rows(rng, 50, 8)]
    one, two = fit_projection(parts, 5, whiten=False), fit_projection([parts[0][::-1]], 5, whiten=False)
    largest = np.take_along_axis(one.components, np.abs(one.components).argmax(axis=0)[None], axis=0)
    assert (largest > 0).all()
    np.testing.assert_allclose(one.components, two.components, atol=1e-5)
    assert (fit_projection(parts, 5, whiten=False).components == one.components).all()


def test_few_of_many_components_are_those_of_the_decomposition(monkeypatch) -> None:
    monkeypatch.setattr(principal, "EXACT_SIDE", 400)
    rng = np.random.default_rng(8)
    parts, weights = [unit_rows(rng, 900, 300), unit_rows(rng, 900, 260)], [1.0, 0.6]
    assert principal.choose_method(900, 560, 40, None) == "krylov"
    fitted = fit_projection(parts, 40, whiten=True, shrinkage=0, weights=weights, memory_bytes=30 << 20)
    rows = joined(parts, weights)
    rows -= rows.mean(axis=0)
    variances, directions = np.linalg.eigh(rows.T @ rows / (len(rows) - 1))
    np.testing.assert_allclose(fitted.variances, variances[::-1][:40], rtol=2e-3)
    assert fitted.explained == pytest.approx(variances[::-1][:40].sum() / variances.sum(), rel=1e-3)
    orthonormal = fitted.components * np.sqrt(fitted.variances)
    np.testing.assert_allclose(orthonormal.T @ orthonormal, np.eye(40), atol=1e-4)
    assert same_space(orthonormal[:, :30], directions[:, ::-1][:, :40]) > 0.999
    np.testing.assert_allclose(np.cov((rows @ fitted.components).T), np.eye(40), atol=2e-3)
    again = fit_projection(parts, 40, whiten=True, shrinkage=0, weights=weights, memory_bytes=30 << 20)
    assert (again.components == fitted.components).all()


def test_components_that_do_not_settle_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(principal, "EXACT_SIDE", 10)
    monkeypatch.setattr(principal, "krylov_widest", lambda _directions, _dimensions: 64)
    rows = np.random.default_rng(9).normal(size=(700, 600)).astype(np.float32)
    with pytest.raises(InputError, match="did not settle: the last of 2 passes"):
        fit_projection([rows], 40, whiten=False)


def test_features_that_vary_in_fewer_directions_than_wanted(monkeypatch) -> None:
    monkeypatch.setattr(principal, "EXACT_SIDE", 10)
    rng = np.random.default_rng(10)
    rows = (rng.normal(size=(500, 12)) @ rng.normal(size=(12, 400)) / 70).astype(np.float32)
    assert principal.choose_method(500, 400, 40, None) == "krylov"
    fitted = fit_projection([rows], 40, whiten=True)
    assert fitted.explained == pytest.approx(1, abs=1e-5)
    assert (np.linalg.norm(fitted.components, axis=0) > 0).sum() == 12


def test_memory_maps_and_chosen_rows_are_read_where_they_lie(tmp_path) -> None:
    rng = np.random.default_rng(11)
    np.save(tmp_path / "m4.npy", unit_rows(rng, 90, 7))
    array, rows = np.load(tmp_path / "m4.npy", mmap_mode="r"), np.array([3, 80, 5, 44, 7, 21, 60, 2, 88])
    fitted = fit_projection([choose(array, rows)], 4, whiten=False)
    held = fit_projection([np.array(array[rows])], 4, whiten=False)
    assert (fitted.components == held.components).all()
    assert (fitted.apply([choose(array, rows)]) == held.apply([array])[rows]).all()


def test_a_draw_of_rows_is_fitted_on_where_there_are_too_many() -> None:
    rng = np.random.default_rng(12)
    rows = unit_rows(rng, 400, 6)
    drawn = np.sort(np.random.default_rng(5).choice(400, 50, replace=False))
    fitted = fit_projection([choose(rows, np.arange(400)[::-1])], 3, whiten=False, max_samples=50, seed=5)
    assert fitted.num_samples == 50
    np.testing.assert_allclose(fitted.mean, rows[::-1][drawn].astype(np.float64).mean(axis=0), atol=1e-6)
    other = fit_projection([rows], 3, whiten=False, max_samples=50, seed=6)
    assert (other.mean != fitted.mean).any()


def test_blocks_come_as_they_are_made_and_progress_is_told() -> None:
    rows = unit_rows(np.random.default_rng(13), 50, 6)
    told: list[tuple[int, int]] = []
    fitted = fit_projection([rows], 3, whiten=False, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (100, 100)
    told.clear()
    blocks = fitted.blocks([rows], memory_bytes=600, progress=lambda done, total: told.append((done, total)))
    first = next(blocks)
    assert 1 <= len(first) < 50
    rest = list(blocks)
    assert (np.concatenate([first, *rest]) == fitted.apply([rows])).all()
    assert told[0] == (len(first), 50)
    assert told[-1] == (50, 50)


def test_no_rows_are_projected_to_none() -> None:
    fitted = fit_projection([unit_rows(np.random.default_rng(14), 9, 6)], 3, whiten=False)
    assert fitted.apply([np.zeros((0, 6), np.float16)]).shape == (0, 3)


def test_a_projection_is_kept(tmp_path) -> None:
    rows = unit_rows(np.random.default_rng(15), 30, 6)
    fitted = fit_projection([rows, rows], 3, whiten=True, weights=[1.0, 2.0])
    fitted.save(tmp_path / "projection.npz.part")
    loaded = Projection.load(tmp_path / "projection.npz.part")
    assert (loaded.apply([rows, rows]) == fitted.apply([rows, rows])).all()
    assert loaded.explained == fitted.explained
    assert loaded.whitens is True
    assert (loaded.num_samples, loaded.dimensions, loaded.weights.tolist()) == (30, 3, [1, 2])


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[: len(data) // 4] + bytes([data[len(data) // 4] ^ 255]) + data[len(data) // 4 + 1 :],
        lambda data: b"",
        lambda data: b"not a projection",
    ],
    ids=["cut short", "a byte changed", "empty", "text"],
)
def test_a_damaged_projection_is_refused(tmp_path, damage) -> None:
    file = tmp_path / "projection.npz"
    fit_projection([unit_rows(np.random.default_rng(16), 30, 6)], 3, whiten=True).save(file)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError, match=r"projection\.npz: is not a whole projection .* fit it again"):
        Projection.load(file)


def test_a_changed_byte_anywhere_is_refused_or_changes_nothing(tmp_path) -> None:
    file = tmp_path / "projection.npz"
    rows = unit_rows(np.random.default_rng(16), 30, 6)
    fitted = fit_projection([rows], 3, whiten=True)
    fitted.save(file)
    data = file.read_bytes()
    refused = 0
    for place in range(0, len(data), 5):
        file.write_bytes(data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :])
        try:
            loaded = Projection.load(file)
        except InputError:
            refused += 1
        else:
            assert (loaded.apply([rows]) == fitted.apply([rows])).all()
    assert refused > len(data) / 10


def test_a_foreign_or_missing_file_is_refused(tmp_path) -> None:
    file = tmp_path / "projection.npz"
    with pytest.raises(InputError, match="is not a whole projection"):
        Projection.load(file)
    np.savez(file, mean=np.zeros(3))
    with pytest.raises(InputError, match="is not a whole projection"):
        Projection.load(file)
    fitted = fit_projection([unit_rows(np.random.default_rng(16), 30, 6)], 3, whiten=True)
    fields = {name: getattr(fitted, name) for name in fitted.__dataclass_fields__}
    for name, value in [("mean", np.zeros(5)), ("weights", np.ones(2)), ("components", np.full((6, 3), np.nan))]:
        np.savez(file, **fields | {"format": 1, name: value})
        with pytest.raises(InputError, match="is not a whole projection"):
            Projection.load(file)
    np.savez(file, **fields | {"format": 2})
    with pytest.raises(InputError, match="another version"):
        Projection.load(file)


@pytest.mark.parametrize(
    "wanted, options, says",
    [
        (0, {}, "dimensions: expected 1 to 6, got 0"),
        (7, {}, "dimensions: expected 1 to 6, got 7"),
        (5, {"max_samples": 5}, "dimensions: expected 1 to 4, got 5"),
        (3, {"weights": [1.0, 2.0]}, "weights: expected 1 positive numbers"),
        (3, {"weights": [0.0]}, "weights: expected 1 positive numbers"),
        (3, {"shrinkage": 1.5}, "shrinkage: expected a number from 0 to 1"),
        (3, {"num_threads": 0}, "num_threads: expected at least 1"),
        (3, {"memory_bytes": 1000}, "need 0.0 GiB, and 0.0 GiB may be taken; ask for fewer components"),
    ],
)
def test_bad_options_are_named(wanted, options, says) -> None:
    rows = unit_rows(np.random.default_rng(17), 20, 6)
    with pytest.raises(InputError, match=says):
        fit_projection([rows], wanted, whiten=True, **options)


@pytest.mark.parametrize(
    "parts, says",
    [
        ([], "features: expected the features of at least one model"),
        ([np.ones((3, 2)), np.ones((4, 2))], "model 1: has 4 rows, model 0 has 3"),
        ([np.ones(3)], r"model 0: expected floating-point features of shape \(N, D\)"),
        ([np.ones((3, 2), np.int64)], "model 0: expected floating-point features"),
        ([np.ones((3, 0))], "model 0: expected floating-point features"),
        ([np.zeros((0, 2))], "dimensions: expected 1 to"),
        ([np.ones((1, 2))], "dimensions: expected 1 to 0, got 1"),
        ([np.full((9, 2), 0.7)], "all 9 rows are equal"),
        ([np.full((9, 20), 0.7, np.float16)], "all 9 rows are equal"),
        ([np.full((9, 2), 1e300)], "too large for float32"),
    ],
)
def test_bad_features_are_named(parts, says) -> None:
    with pytest.raises(InputError, match=says):
        fit_projection(parts, 1, whiten=False)


def test_a_row_that_is_not_finite_is_named_by_its_file(tmp_path) -> None:
    rows = unit_rows(np.random.default_rng(18), 40, 6)
    fitted = fit_projection([rows, rows], 3, whiten=False)
    broken = rows.copy()
    broken[27, 2] = np.nan
    np.save(tmp_path / "m4.npy", broken)
    array = np.load(tmp_path / "m4.npy", mmap_mode="r")
    for part, row in [(array, 27), (choose(array, np.array([39, 27, 1, 2, 3, 4])), 27)]:
        with pytest.raises(InputError, match=rf"m4\.npy: row {row} is not finite"):
            fit_projection([rows[: len(part)], part], 1, whiten=False)
        with pytest.raises(InputError, match=rf"m4\.npy: row {row} is not finite"):
            fitted.apply([rows[: len(part)], part], memory_bytes=300)


def test_other_models_than_were_fitted_are_refused_and_so_is_the_mean_itself() -> None:
    rows = np.eye(4, dtype=np.float32)
    fitted = fit_projection([rows], 2, whiten=False)
    with pytest.raises(InputError, match=r"with \[4\] dimensions, got \[3\]"):
        fitted.apply([rows[:, :3]])
    with pytest.raises(InputError, match="row 1 is the mean"):
        fitted.apply([np.array([[1, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]], np.float32)])


def test_the_memory_asked_for_decides_how_components_are_computed() -> None:
    exact, needed = "covariance", principal.method_bytes("covariance", 100_000, 16_384, 4_000)
    assert principal.choose_method(100_000, 16_384, 4_000, None) == exact
    assert principal.choose_method(100_000, 16_384, 4_000, needed) == exact
    assert principal.choose_method(100_000, 16_384, 4_000, needed - 1) == "krylov"
    assert principal.choose_method(100_000, 16_384, 16_384, 1) == exact
    assert principal.choose_method(100_000, 16_384, 512, None) == "krylov"
    assert principal.choose_method(100_000, 1_024, 16, None) == exact
    assert principal.choose_method(1_000, 16_384, 999, None) == "products"


def test_bytes_told_beforehand_grow_with_what_is_asked() -> None:
    few, all_of_them = (fit_bytes(590_000, [1024] * 16, dimensions) for dimensions in (512, None))
    assert 2**30 < few < 4 * 2**30
    assert 8 * 16_384**2 * 4 < all_of_them < 16 * 2**30
    assert fit_bytes(60_000, [256], 64) < 2**28


def test_threads_and_precision_are_given_back() -> None:
    import torch

    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with stacks.computing(1):
            assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (1, "highest")
        assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (threads, "medium")
    finally:
        torch.set_float32_matmul_precision(precision)


@pytest.mark.gpu
def test_a_gpu_finds_the_same_components() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    parts = [unit_rows(np.random.default_rng(19), 2300, 2200)]
    for wanted in (40, 1500):
        here, there = (fit_projection(parts, wanted, whiten=False, device=name) for name in ("cpu", "cuda"))
        np.testing.assert_allclose(there.variances, here.variances, rtol=1e-4)
        np.testing.assert_allclose(there.apply(parts, device="cuda"), there.apply(parts, device="cpu"), atol=2e-3)
