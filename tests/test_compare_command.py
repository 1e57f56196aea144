"""`leaderboard compare` on files and rows."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.types import InputError
from leaderboard.store import Board
from run import app
from tests.leaderboard.samples import with_hits
from tests.scoring.worlds import item, query, result, write

BOX = [0.0, 0.0, 10.0, 10.0]


def compare(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["leaderboard", "compare", *map(str, arguments)])


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, list[object]]:
    """Two result files, the second right in seven of eight queries, the first in none, and the options of the truth."""
    photos = range(1, 9)
    queries = [query(photo, BOX, pair_id=photo) for photo in photos]
    gallery = [item(100 + photo, BOX, pair_id=photo) for photo in photos]
    right = [result(photo, BOX, right={3: (100 + photo, BOX)}) for photo in photos]
    wrong = [result(photo, BOX) for photo in photos]
    first, query_file, gallery_file = write(tmp_path, wrong, queries, gallery)
    second = tmp_path / "better.json"
    second.write_text(json.dumps(right[:7] + wrong[7:]))
    return first, second, ["--query", query_file, "--gallery", gallery_file]


def test_files_as_json(files) -> None:
    first, second, truth = files
    done = compare(first, second, *truth, "--json", "--k", 5)
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert (found["first"], found["second"], found["k"]) == (str(first), str(second), 5)
    assert (found["first_acc"], found["second_acc"], found["num_queries"]) == (0, 7 / 8, 8)
    assert found["test"] == {"only_first": 0, "only_second": 7, "p_value": 2 / 2**7}
    assert "better.json beats results.json at Acc@5" in found["verdict"]
    assert list(found["by_k"]) == ["1", "5", "10", "15", "20"]
    assert found["by_k"]["1"]["queries_needed"] is None
    assert found["by_k"]["5"]["difference"] == found["difference"] == 7 / 8


def test_files_for_a_reader(files) -> None:
    first, second, truth = files
    shown = compare(first, second, *truth).stdout
    for k in (1, 5, 10, 15, 20):
        assert f"Acc@{k} " in shown
    assert "+0.8750" in shown
    assert "0.016" in shown
    assert "8 queries" in shown
    assert shown.splitlines()[-1].startswith("better.json beats results.json at Acc@10")
    table = shown[shown.index("first ") : shown.index("first: ")]
    assert max(map(len, table.splitlines())) <= 80


def test_rows_are_compared_as_before(tmp_path: Path) -> None:
    board = Board(tmp_path / "board.db")
    ids = [board.add(with_hits("weak", 60)), board.add(with_hits("strong", 80))]
    board.close()
    done = compare(ids[0][:12], ids[1], "--board", tmp_path / "board.db", "--work", tmp_path, "--json")
    found = json.loads(done.stdout)
    assert (found["second_acc"], found["queries_needed"]) == (0.8, 47)
    assert found["verdict"].startswith("RENDERED data: strong beats weak at Acc@10")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--query and --gallery: missing; result files are scored"),
        (["--query", "q.json"], "^--gallery: missing"),
        (["--gallery", "g.json"], "^--query: missing"),
    ],
)
def test_files_without_their_truth(files, options, message) -> None:
    first, second, _ = files
    with pytest.raises(InputError, match=message):
        raise compare(first, second, *options).exception


def test_what_is_no_file(files, tmp_path) -> None:
    first, _, truth = files
    with pytest.raises(InputError, match=r"nowhere\.json: no such file, but .*results\.json is one; give two"):
        raise compare(first, tmp_path / "nowhere.json", *truth).exception
    with pytest.raises(InputError, match="a1b2 and c3d4: no such file; give two challenge JSONs, or two row ids"):
        raise compare("a1b2", "c3d4", *truth).exception
    assert compare(first, first, *truth, "--k", 7).exit_code == 2
