"""`run.py enter detections`: boxes of another program as a detector of every command."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.artifacts import read_detections
from harness.data.exports import write_coco_results
from harness.types import Detections
from tests.commands import ok, refused


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "data"
    ok("data", "render", folder, "--train", 40, "--validation", 32, "--test", 4, "--workers", 1)
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ATSS, hardly trained, and its boxes in a file."""
    work = tmp_path_factory.mktemp("made") / "work"
    place = ("--data", data, "--work", work)
    ok("train", "detector", "ATSS", *place, "--scale", "tiny", "--steps", 3, "--hold-out")
    address = json.loads(ok("detect", "ATSS", *place, "--json"))["boxes"][0]["address"]
    write_coco_results(work / "ours.json", read_detections(work / "store" / "detect" / address / "boxes.parquet"))
    return work


@pytest.fixture
def work(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "work"))


def truth(data: Path, split: str, path: Path) -> Path:
    """The annotated boxes of a split as anyone's detections."""
    from harness.data.deepfashion2 import read_split

    items = read_split(data, split).items
    assert items is not None
    scores = np.random.default_rng(0).uniform(0.3, 0.9, len(items))
    write_coco_results(path, Detections(items.image_ids, items.boxes_xyxy, scores, items.category_ids))
    return path


def told(*arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ok(*arguments, "--json"))
    return found


def test_entered_boxes_are_a_detector_like_any_other(data: Path, work: Path) -> None:
    place = ("--data", data, "--work", work)
    card = told("enter", "detections", "d6", "--boxes", work / "ours.json", *place, "--trained-on", "shops")
    assert (card["kind"], card["trained_on_said"], card["rendered"]) == ("entered", "shops", True)
    assert told("enter", "detections", "d6", "--boxes", work / "ours.json", *place)["entries"] == card["entries"]
    found = told("detect", "ATSS", "d6", "WBF(ATSS,d6)", "d6@20", *place)["boxes"]
    ours, theirs, fused, budget = found
    assert theirs["ap"] == ours["ap"]
    assert theirs["num_boxes"] == ours["num_boxes"] == card["entries"][0]["num_boxes"]
    assert theirs["settings"]["d6"].startswith("made elsewhere, ")
    assert fused["num_boxes"] > 0
    assert budget["num_boxes"] == 20
    rows = [told("score", f"histogram + {name}", *place) for name in ("ATSS", "d6")]
    assert rows[0]["acc"] == rows[1]["acc"]
    assert rows[1]["contamination"] is None
    listed = told("models", "--work", work)["trained"]["detectors"]
    assert listed["d6"]["summary"] == "boxes made elsewhere, by a model trained on: shops"
    tables = told("tables", *place)["tables"]
    assert any('"d6"' in json.dumps(table) for table in tables)
    said = ok("enter", "detections", "d6", "--boxes", work / "ours.json", *place)
    assert "boxes on RENDERED validation" in said
    assert "trained on: shops" in said


def test_no_photo_is_decoded_and_other_boxes_have_another_address(data: Path, work: Path, tmp_path: Path) -> None:
    place = ("--data", data, "--work", work)
    ok("enter", "detections", "d6", "--boxes", work / "ours.json", *place)
    before = told("detect", "d6", *place)["boxes"][0]
    ok("enter", "detections", "d6", "--boxes", truth(data, "validation", tmp_path / "t.json"), *place)
    after = told("detect", "d6", *place)["boxes"][0]
    assert after["address"] != before["address"]
    assert after["ap"]["ap50"] > 0.9
    ok("enter", "detections", "d6", "--boxes", work / "ours.json", *place)
    assert told("detect", "d6", *place)["boxes"][0]["address"] == before["address"]
    assert len(list((work / "models" / "detectors" / "d6").glob("*.parquet"))) == 1


def test_a_detector_that_saw_the_split_is_ranked_apart(data: Path, work: Path) -> None:
    place = ("--data", data, "--work", work)
    said = ok("enter", "detections", "d6", "--boxes", work / "ours.json", *place, "--saw", "validation")
    assert "rows on validation are ranked apart" in said
    row = told("score", "histogram + WBF(ATSS,d6)", *place)
    assert row["contamination"] == "trained on validation: d6"


def test_settings_are_refused_where_nothing_can_be_set(data: Path, work: Path) -> None:
    place = ("--data", data, "--work", work)
    ok("enter", "detections", "d6", "--boxes", work / "ours.json", *place)
    for options in (["--score-threshold", 0.5], ["--flip"], ["--flip", "--keep"]):
        for name in ("d6", "WBF(ATSS,d6)"):
            message = refused("detect", name, *place, *options)
            assert "d6: the boxes were made elsewhere, so nothing can be set" in message
    assert "d6: the boxes were made elsewhere" in refused("detect", "d6", *place, "--keep")
    assert not (work / "inference.json").exists()
    ok("detect", "WBF(ATSS,d6)", *place, "--fusion", "iou_threshold=0.6", "--keep")
    assert json.loads((work / "inference.json").read_text() if (work / "inference.json").exists() else "{}") == {}


def test_fusion_is_fitted_where_the_held_out_photos_have_boxes(data: Path, work: Path, tmp_path: Path) -> None:
    place = ("--data", data, "--work", work)
    ok("enter", "detections", "d6", "--boxes", work / "ours.json", *place)
    fit = ("tune", "fusion", *place, "--boxes", "WBF(ATSS,d6)", "--trials", 2, "--no-report")
    message = refused(*fit)
    assert "no boxes of d6 were entered for train" in message
    assert "run.py enter detections d6 --boxes FILE" in message
    boxes = truth(data, "train", tmp_path / "train.json")
    enter = ("enter", "detections", "d6", "--boxes", boxes, *place, "--split", "train")
    ok(*enter, "--saw", "train", "--hold-out")
    ok(*fit)
    found = told("detect", "WBF(ATSS,d6)", *place)
    # Boxes of other photos do not matter to what was fitted; other boxes of the photos of the fit do.
    ok("enter", "detections", "d6", "--boxes", truth(data, "validation", tmp_path / "v.json"), *place)
    assert told("detect", "WBF(ATSS,d6)", *place)["boxes"][0]["fusion"] == found["boxes"][0]["fusion"]
    rows = json.loads(boxes.read_text())
    boxes.write_text(json.dumps(rows[:-1]))
    ok(*enter)
    message = refused("detect", "WBF(ATSS,d6)", *place)
    assert "the settings of WBF(ATSS,d6) were fitted for another d6 than is here now" in message
    ok(*enter, "--saw", "train")
    message = refused(*fit)
    assert "d6 was made elsewhere, by a model that saw the photos that fusion would be fitted on" in message


def test_tables_leave_out_what_was_entered_for_another_split(data: Path, work: Path, tmp_path: Path) -> None:
    place = ("--data", data, "--work", work)
    boxes = truth(data, "train", tmp_path / "train.json")
    ok("enter", "detections", "Zebra", "--boxes", boxes, *place, "--split", "train")
    assert "Zebra" not in json.dumps(told("tables", *place))
    assert "no boxes of Zebra were entered for validation" in refused("score", "histogram + Zebra", *place)


@pytest.mark.parametrize("name", ["ATSS", "atss", "GT", "WBF_6", "m4", "back slash", "6d", "backbones"])
def test_names_that_are_taken(name: str, data: Path, work: Path) -> None:
    files = ("--boxes", work / "ours.json", "--data", data, "--work", work)
    assert f"detector name {name!r}: expected a letter" in refused("enter", "detections", name, *files)


def test_names_differ_by_more_than_case(data: Path, work: Path) -> None:
    files = ("--boxes", work / "ours.json", "--data", data, "--work", work)
    ok("enter", "detections", "d6", *files)
    assert "there is a detector d6 here already" in refused("enter", "detections", "D6", *files)
    message = refused("enter", "detections", "d7", *files, "--hold-out")
    assert "held-out pairs are some of the train split's" in message
