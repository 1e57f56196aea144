"""`check` as a team types it: with a data set, with ground truth, `--fix`, `--diff` and `--json`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from harness.types import InputError
from run import app
from tests.submissions.samples import make_row, make_rows


def check(*arguments: Any, status: int = 0) -> str:
    result = CliRunner().invoke(app, ["check", *map(str, arguments)])
    assert result.exit_code == status, (result.output, result.exception)
    return result.stdout


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def write(rows: Any, name: str = "r.json") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(rows))
        return path

    return write


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A test split without annotations: consumer photos 1 and 2, shop photos 100 to 119, of 60 x 50 pixels."""
    root = tmp_path / "data"
    (root / "test" / "image").mkdir(parents=True)
    ids = {"consumer": [1, 2], "shop": list(range(100, 120))}
    for kind, some in ids.items():
        images = [{"id": one, "file_name": f"{one:06d}.jpg"} for one in some]
        (root / f"retrieval_test_{kind}_information.json").write_text(json.dumps({"images": images}))
        for one in some:
            Image.fromarray(np.zeros((50, 60, 3), np.uint8)).save(root / "test" / "image" / f"{one:06d}.jpg")
    return root


def test_a_clean_file_is_one_line(file: Any) -> None:
    path = file(make_rows(3))
    assert check(path) == f"{path}: no errors, no warnings, 3 rows\n"
    assert json.loads(check(path, "--json")) == {"ok": True, "num_rows": 3, "problems": [], "kinds": []}


def test_the_photos_of_a_data_set_tell_ids_and_sizes(file: Any, data: Path) -> None:
    path = file([make_row(1, query_bbox=[10, 10, 90, 40]), make_row(100), make_row(2)])
    lines = check(path, "--data", data, "--split", "test", status=1).splitlines()
    assert lines == [
        "error: [1].query_image_id: image 100 is a shop photo, expected a consumer photo",
        "warning: [0].query_bbox: reaches out of its photo: [10, 10, 90, 40]",
        f"{path}: 1 error, 1 warning, 3 rows",
    ]
    fixed = path.with_name("fixed.json")
    text = check(
        file([make_row(1, query_bbox=[10, 10, 63, 40]), make_row("2")]),
        "--data",
        data,
        "--split",
        "test",
        "--fix",
        fixed,
    )
    assert text.splitlines() == [
        "mended: 1 × whole number that was a text (rows [1])",
        "mended: 1 × box clipped to its photo (rows [0])",
        f"{fixed}: no errors, no warnings, 2 rows",
    ]
    assert json.loads(fixed.read_text()) == [make_row(1, query_bbox=[10, 10, 60, 40]), make_row(2)]


def test_ground_truth_tells_ids(file: Any) -> None:
    box = [1, 1, 9, 9]
    query = file([{"query_image_id": 1, "bbox": box, "cls": 1, "style": 1, "pair_id": 1}], "query.json")
    answers = [{"gallery_image_id": 100 + n, "bbox": box, "style": 1, "pair_id": 1} for n in range(20)]
    gallery = file(answers, "gallery.json")
    path = file([make_row(1), make_row(2)])
    text = check(path, "--query", query, "--gallery", gallery)
    assert (
        text.splitlines()[0] == "warning: [1].query_image_id: image 2 is not in the ground truth, so it counts nothing"
    )
    assert "belong together" in CliRunner().invoke(app, ["check", str(path), "--query", str(query)]).output
    check(path, "--query", query, status=2)
    check(path, "--query", query, "--gallery", gallery, "--data", path.parent, status=2)


def test_mending_leaves_the_other_inputs_alone(file: Any, data: Path) -> None:
    box = [1, 1, 9, 9]
    query = file([{"query_image_id": 1, "bbox": box, "cls": 1, "style": 1, "pair_id": 1}], "query.json")
    gallery = file([{"gallery_image_id": 100 + n, "bbox": box, "style": 1, "pair_id": 1} for n in range(20)], "g.json")
    information = data / "retrieval_test_shop_information.json"
    for out, options in (
        (query, ["--query", query, "--gallery", gallery]),
        (gallery, ["--query", query, "--gallery", gallery]),
        (information, ["--data", data, "--split", "test"]),
    ):
        before = out.read_bytes()
        found = json.loads(check(file([make_row(1)]), *options, "--fix", out, "--json", status=1))
        assert "name another file for the copy" in found["problems"][0]["what"]
        assert out.read_bytes() == before


def test_mending_says_what_was_done_and_what_is_left(file: Any) -> None:
    path = file([make_row("1"), make_row(2, query_score=float("nan"))])
    fixed = path.with_name("fixed.json")
    found = json.loads(check(path, "--fix", fixed, "--json", status=1))
    assert found["repairs"] == [{"what": "whole number that was a text", "num": 1, "rows": [0]}]
    assert (found["ok"], found["written"], found["num_rows"]) == (False, str(fixed), 2)
    assert [one["where"] for one in found["problems"]] == ["[1].query_score"]
    assert check(file(make_rows(2)), "--fix", fixed).startswith("nothing to mend: an exact copy\n")
    assert json.loads(fixed.read_text()) == make_rows(2)


def test_an_encoding_is_mended_and_named(file: Any) -> None:
    path = file([])
    path.write_bytes(json.dumps(make_rows(2)).encode("utf-16"))
    fixed = path.with_name("fixed.json")
    assert check(path, "--fix", fixed).splitlines() == [
        "mended: file written as plain UTF-8",
        f"{fixed}: no errors, no warnings, 2 rows",
    ]


def test_two_files_are_compared_however_the_option_is_placed(file: Any) -> None:
    swapped = make_row(3)
    swapped["gallery_image_id"] = [*range(100, 118), 119, 118]
    first = file([make_row(1), make_row(2), make_row(3)], "a.json")
    second = file([make_row(2, query_score=0.5), swapped, make_row(4)], "b.json")
    lines = check("--diff", first, second).splitlines()
    assert lines == check(first, "--diff", second).splitlines()
    assert lines == [
        f"A = {first}: 3 rows",
        f"B = {second}: 3 rows",
        "in both: 2 rows of the same photo, box and category",
        "only in A: 1 row: [0] photo 1, class 3, box [1.5, 2.0, 30.0, 40.25]",
        "only in B: 1 row: [2] photo 4, class 3, box [1.5, 2.0, 30.0, 40.25]",
        "other scores: 1 row, by at most 0.25; the first is A[1] 0.75, B[0] 0.5",
        "other gallery lists: 1 row; the first is A[2], B[1], from rank 19 on",
        "    first rank that differs: 1: 0, 2–5: 0, 6–10: 0, 11–20: 1",
        "    shared entries, mean of all rows in both: top 1 100.0%, top 5 100.0%, top 10 100.0%, top 20 95.0%",
    ]
    found = json.loads(check(first, second, "--diff", "--json"))
    assert (found["same"], found["num_rows"], found["num_matched"]) == (False, [3, 3], 2)
    assert found["only_in_first"]["examples"][0]["row"] == 0
    assert found["galleries"]["first_differing_rank"] == {"19": 1}
    assert found["galleries"]["overlap"] == {"1": 1.0, "5": 1.0, "10": 1.0, "20": 0.95}
    assert check("--diff", first, first).splitlines()[-1] == "they say the same"


@pytest.mark.parametrize("arguments", [["--diff"], ["--diff", "x", "y"], ["x"], ["--diff", "x", "--fix", "y"]])
def test_wrong_usage_is_told(file: Any, arguments: list[str]) -> None:
    check(file(make_rows(1)), *arguments, status=2)


def test_of_many_kinds_the_first_are_printed(file: Any) -> None:
    rows = [{}, 7, *(make_row(1, **{name: value}) for name in make_row() for value in (None, "x"))]
    lines = check(file(rows), status=1).splitlines()
    assert len(lines) == 14
    assert all(line.startswith("error: ") for line in lines[:12])
    assert lines[12] == "… and 3 more kinds of errors (all of them with --json)"


def test_a_file_that_is_not_there_is_one_object_or_one_message(tmp_path: Path) -> None:
    found = json.loads(check(tmp_path / "r.json", "--json", status=1))
    assert found["ok"] is False
    assert "no such file" in found["problems"][0]["what"]
    result = CliRunner().invoke(app, ["check", str(tmp_path / "r.json")])
    assert isinstance(result.exception, InputError)
