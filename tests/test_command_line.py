"""What the command line promises to a shell: exit status, one message, one JSON object."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.spec import PAPER_DETECTORS, PAPER_MODELS
from run import app, main

ROOT = Path(__file__).parents[1]

BOX = [10.0, 10.0, 50.0, 90.0]
QUERY = [{"query_image_id": 1, "bbox": BOX, "cls": 3, "style": 1, "pair_id": 7}]
GALLERY = [{"gallery_image_id": n, "bbox": BOX, "style": n - 1, "pair_id": 7} for n in range(2, 22)]
RESULT = [
    {
        "query_image_id": 1,
        "query_bbox": BOX,
        "query_cls": 3,
        "query_score": 0.9,
        # The right answer is photo 2; it stands at rank 6.
        "gallery_image_id": [3, 4, 5, 6, 7, 2, *range(8, 22)],
        "gallery_bbox": [BOX] * 20,
    }
]


def run(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def files(folder: Path) -> list[Path]:
    paths = [folder / name for name in ("result.json", "query.json", "gallery.json")]
    for path, value in zip(paths, (RESULT, QUERY, GALLERY), strict=True):
        path.write_text(json.dumps(value))
    return paths


def test_evaluate_scores_three_files_and_prints_one_object(tmp_path: Path) -> None:
    result, query, gallery = files(tmp_path)
    done = run("evaluate", result, "--query", query, "--gallery", gallery, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {key: told[key] for key in ("protocol", "num_queries", "acc")} == {
        "protocol": "official",
        "num_queries": 1,
        "acc": {"1": 0.0, "5": 0.0, "10": 1.0, "15": 1.0, "20": 1.0},
    }


def test_a_failed_check_prints_its_problems_and_exits_with_1(tmp_path: Path) -> None:
    result, *_ = files(tmp_path)
    assert run("check", result, folder=tmp_path).returncode == 0
    result.write_text(json.dumps([RESULT[0] | {"query_cls": 99, "gallery_image_id": ["2"] * 20}]))
    done = run("check", result, "--json", folder=tmp_path)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["ok"] is False
    assert {"where", "what"} <= found["problems"][0].keys()
    assert any("query_cls" in problem["where"] for problem in found["problems"])
    assert any("gallery_image_id" in problem["where"] for problem in found["problems"])


def test_an_empty_list_is_no_submission_and_brackets_are_printed(tmp_path: Path) -> None:
    result, *_ = files(tmp_path)
    result.write_text("[]")
    done = run("check", result, folder=tmp_path)
    assert done.returncode == 1
    assert "holds no entry" in done.stdout
    result.write_text(json.dumps([RESULT[0] | {"query_bbox": [1, 2, 3]}]))
    assert "[x1, y1, x2, y2]" in run("check", result, folder=tmp_path).stdout


def test_of_many_problems_the_first_are_printed(tmp_path: Path) -> None:
    result, *_ = files(tmp_path)
    result.write_text(json.dumps([RESULT[0] | {"query_image_id": n, "query_cls": 99} for n in range(1, 100)]))
    done = run("check", result, folder=tmp_path)
    assert "(and 98 more like it, in 99 rows: [0], [1], [2], …)" in done.stdout
    assert len(done.stdout.splitlines()) == 2
    assert len(json.loads(run("check", result, "--json", folder=tmp_path).stdout)["problems"]) == 99


def test_wrong_input_is_one_message_without_a_traceback(tmp_path: Path) -> None:
    done = run("score", "m4", "--data", tmp_path / "nowhere", folder=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert str(tmp_path / "nowhere") in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "work").exists()


def test_wrong_usage_exits_with_2(tmp_path: Path) -> None:
    assert run("score", folder=tmp_path).returncode == 2
    assert run("fly", folder=tmp_path).returncode == 2


def test_every_recipe_is_listed_with_what_was_published() -> None:
    listed = json.loads(CliRunner().invoke(app, ["models", "--json"]).stdout)
    assert tuple(listed["detectors"]) == PAPER_DETECTORS
    assert tuple(listed["retrievers"]) == PAPER_MODELS
    assert listed["detectors"]["ATSS"]["published"]["ap50"] == 0.836
    assert listed["retrievers"]["m15"]["published_acc10"] == 0.882
    shown = CliRunner().invoke(app, ["models"]).stdout
    assert "ATSS" in shown
    assert "m17" in shown


def test_a_full_disk_is_one_message_and_with_json_one_object(monkeypatch, capsys) -> None:
    """The error of a failed write names no file."""
    monkeypatch.setattr("run.app", lambda: (_ for _ in ()).throw(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    monkeypatch.setattr(sys, "argv", ["run.py", "score", "--json"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    shown = capsys.readouterr()
    assert shown.err == "error: No space left on device\n"
    assert json.loads(shown.out) == {"error": "No space left on device"}


def test_with_json_a_failure_is_one_object_too(tmp_path: Path) -> None:
    done = run("evaluate", "nowhere.json", "--query", "q.json", "--gallery", "g.json", "--json", folder=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"error": done.stderr.removeprefix("error: ").rstrip()}
