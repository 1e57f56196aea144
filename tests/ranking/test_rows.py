"""Rows of features are read where they lie, and messages name their file."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.ranking.expansion import combine
from harness.ranking.reranking import k_reciprocal
from harness.ranking.rows import ChosenRows, JoinedRows, choose, place
from harness.ranking.search import nearest
from harness.ranking.whitening import fit_projection
from harness.types import InputError


def test_rows_that_follow_one_another_are_a_view_and_others_a_choice(tmp_path) -> None:
    np.save(tmp_path / "vectors.npy", np.arange(20.0).reshape(10, 2))
    array = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    view, some = choose(array, np.arange(3, 7)), choose(array, np.array([1, 4, 9, 2]))
    assert np.shares_memory(view, array)
    assert isinstance(some, ChosenRows)
    assert some.shape == (4, 2)
    assert some.dtype == array.dtype
    assert some[:].tolist() == array[[1, 4, 9, 2]].tolist()
    assert some[1:3].tolist() == array[[4, 9]].tolist()
    assert some[np.array([3, 0])].tolist() == array[[2, 1]].tolist()
    assert choose(array, np.zeros(0, np.int64))[:].shape == (0, 2)


def test_a_slice_of_chosen_rows_that_follow_one_another_is_no_copy() -> None:
    array = np.arange(20.0).reshape(10, 2)
    assert np.shares_memory(ChosenRows(array, np.array([4, 5, 6, 1]))[:3], array)


def test_a_message_names_the_file_and_the_row_in_it(tmp_path) -> None:
    file = tmp_path / "vectors.npy"
    np.save(file, np.arange(20.0).reshape(10, 2))
    array = np.load(file, mmap_mode="r")
    assert place(array, 5, "m4") == f"{file}: row 5"
    assert place(choose(array, np.arange(3, 7)), 1, "m4") == f"{file}: row 4"
    assert place(choose(array, np.array([1, 4, 9, 2])), 2, "m4") == f"{file}: row 9"
    assert place(choose(array[2:], np.array([1, 4])), 1, "m4") == f"{file}: row 6"
    assert place(np.arange(20.0).reshape(10, 2), 5, "m4") == "m4: row 5"
    assert place(np.array(array), 5, "m4") == "m4: row 5"


def test_joined_rows_read_as_their_concatenation(tmp_path) -> None:
    np.save(tmp_path / "vectors.npy", np.arange(20.0, dtype=np.float32).reshape(10, 2))
    lower = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    upper = np.arange(6, dtype=np.float16).reshape(3, 2)
    joined, whole = JoinedRows(upper, choose(lower, np.array([4, 1, 9]))), np.concatenate([upper, lower[[4, 1, 9]]])
    assert joined.shape == whole.shape
    assert len(joined) == 6
    assert joined.dtype == np.float32
    choices = [slice(0, 2), slice(1, 5), slice(3, 6), slice(4, 99), slice(None, None, 2), slice(5, 2)]
    indices = [np.array([5, 0, 3, 3]), np.array([[1, 4], [2, 5]]), np.zeros(0, np.int64), whole[:, 0] > 2]
    for rows in [*choices, *indices]:
        assert joined[rows].tolist() == whole[rows].tolist()
    assert np.shares_memory(joined[:2], upper)
    assert place(joined, 2, "m4") == "m4: row 2"
    assert place(joined, 5, "m4") == f"{tmp_path / 'vectors.npy'}: row 9"


def cut_off(folder: Path) -> NDArray[Any]:
    path = folder / "vectors.npy"
    np.save(path, np.random.default_rng(0).standard_normal((2000, 4)).astype(np.float16))
    stored: NDArray[Any] = np.load(path, mmap_mode="r")
    os.truncate(path, 5000)
    return stored


@pytest.mark.parametrize(
    "use",
    [
        lambda rows: nearest([np.ones((1, 4))], [ChosenRows(rows[3:], np.arange(7))], 1),
        lambda rows: k_reciprocal(rows[:9], ChosenRows(rows, np.arange(9, 2000))),
        lambda rows: nearest([np.ones((1, 4))], [JoinedRows(np.ones((2, 4)), rows)], 1),
        lambda rows: fit_projection([rows], 2, whiten=True),
        lambda rows: list(combine([np.ones((2000, 4))], [rows], np.zeros((2000, 1), np.int64), np.ones((2000, 2)))),
    ],
    ids=["search", "re-ranking", "joined", "projection", "expansion"],
)
def test_a_file_that_was_cut_off_is_named_instead_of_ending_the_process(tmp_path: Path, use: Any) -> None:
    with pytest.raises(InputError, match=r"vectors\.npy: has 5000 bytes, .* needs 16128"):
        use(cut_off(tmp_path))
