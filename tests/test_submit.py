"""`submit` on what needs no training: the histogram on ground-truth boxes."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from harness.spec import BoxSource
from submissions.writer import DECIMALS
from tests.commands import call, ok


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "data"
    ok("data", "render", folder, "--train", 8, "--validation", 40, "--test", 8, "--workers", 1)
    return folder


def submit(data: Path, out: Path, *options: object) -> Result:
    arguments = "submit", "histogram + GT", "--data", data, "--split", "validation", "--out", out
    done = call(*arguments, "--work", data.parent / "work", *options)
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def coordinates(path: Path) -> list[float]:
    return [one for row in json.loads(path.read_text()) for box in row["gallery_bbox"] for one in box]


def test_decimals(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rendered boxes are of whole pixels, so they are moved by .123456 of one."""
    from harness.box_stages import BoxSet
    from harness.pipeline import Pipeline

    whole = Pipeline.boxes

    def moved(pipeline: Pipeline, source: BoxSource) -> BoxSet:
        found = whole(pipeline, source)
        boxes = replace(found.detections, boxes_xyxy=found.detections.boxes_xyxy + 0.123456)
        return BoxSet(boxes, found.address + "moved", found.source)

    monkeypatch.setattr(Pipeline, "boxes", moved)
    submit(data, tmp_path / "plain")
    for decimals in (DECIMALS, 0, 6):
        submit(data, tmp_path / str(decimals), "--decimals", decimals)
    assert (tmp_path / "plain").read_bytes() == (tmp_path / "3").read_bytes()
    for name, fraction in (("3", 0.123), ("0", 0), ("6", 0.123456)):
        assert {round(one % 1, 9) for one in coordinates(tmp_path / name)} == {fraction}


def test_other_numbers_of_decimals_are_wrong_usage() -> None:
    for decimals in (-1, 10):
        arguments = ["submit", "m0", "--data", "d", "--out", "o", "--decimals", str(decimals)]
        assert call(*arguments).exit_code == 2


def test_a_zip_holds_what_the_plain_file_holds(data: Path, tmp_path: Path) -> None:
    submit(data, tmp_path / "plain.json")
    done = submit(data, tmp_path / "new" / "plain.zip")
    with zipfile.ZipFile(tmp_path / "new" / "plain.zip") as archive:
        assert archive.read("plain.json") == (tmp_path / "plain.json").read_bytes()
    assert "wrote" in done.stdout
    assert "warning" not in done.stderr


def test_a_large_file_is_warned_about_before_the_search(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise RuntimeError("searched")

    monkeypatch.setattr("submissions.writer.REFUSED_BYTES", 1000)
    monkeypatch.setattr("harness.pipeline.Pipeline.rank", forbidden)
    arguments = "submit", "histogram + GT", "--data", data, "--split", "validation", "--work", tmp_path / "work"
    done = call(*arguments, "--out", tmp_path / "large.json")
    assert str(done.exception) == "searched"
    assert "large.json: the file will be about 0 MB: the challenge server is reported to have refused" in done.stderr
    assert done.stdout == ""
