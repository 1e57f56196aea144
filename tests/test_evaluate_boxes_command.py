"""`evaluate-boxes` on files as `data export` and other tools write them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.data.coco import read_coco_truth
from harness.data.exports import write_coco_results
from harness.scoring.boxes import box_ap, per_category
from harness.types import Detections, InputError
from run import app


def evaluate(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["evaluate-boxes", *map(str, arguments)])


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Detections and truth of 40 photos, of which the last 10 have no item."""
    rng = np.random.default_rng(0)
    count = 60
    corner, size = rng.uniform(0, 200, (count, 2)), np.exp(rng.uniform(2.5, 5.5, (count, 2)))
    images, categories = rng.integers(1, 31, count), rng.integers(1, 5, count)
    columns = zip(images.tolist(), categories.tolist(), np.hstack([corner, size]).tolist(), strict=True)
    truth = {
        "info": {"description": "RENDERED boxes, not DeepFashion2: validation"},
        "images": [{"id": n, "width": 600, "height": 600} for n in range(1, 41)],
        "annotations": [{"image_id": image, "category_id": c, "bbox": box} for image, c, box in columns],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    rows = rng.integers(0, count, 300)
    moved = np.hstack([corner, corner + size])[rows] + rng.normal(0, 3, (300, 4))
    moved = np.hstack([np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])])
    where = np.where(rng.random(300) < 0.1, 40, images[rows])
    write_coco_results(tmp_path / "found.json", Detections(where, moved, rng.random(300), categories[rows]))
    return tmp_path / "found.json", tmp_path / "truth.json"


@pytest.mark.parametrize("engine", ["faster", "pycocotools"])
def test_one_object_with_the_averages(files, engine) -> None:
    file, truth = files
    done = evaluate(file, "--truth", truth, "--json", "--engine", engine)
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    known, rows = read_coco_truth(truth), json.loads(file.read_text())
    xywh = np.array([row["bbox"] for row in rows])
    boxes = Detections(
        np.array([row["image_id"] for row in rows]),
        np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]]),
        np.array([row["score"] for row in rows]),
        np.array([row["category_id"] for row in rows]),
    )
    expected = box_ap(known.items, boxes, np.arange(1, 41), engine="pycocotools")
    assert 0.1 < expected.ap < 0.9
    assert {name: found[name] for name in vars(expected)} == pytest.approx(vars(expected), abs=1e-9)
    assert (found["num_boxes"], found["num_photos"], found["num_items"]) == (300, 40, 60)
    assert (found["engine"], found["warnings"]) == (engine, [])
    assert list(found["per_category"]) == [str(category) for category in range(1, 14)]
    third = per_category(known.items, boxes, np.arange(1, 41))[3]
    assert found["per_category"]["3"] == pytest.approx(vars(third), abs=1e-9)
    assert found["per_category"]["13"]["ap"] is None


def test_a_table_for_a_reader(files) -> None:
    file, truth = files
    shown = evaluate(file, "--truth", truth).stdout
    assert "300 boxes on 40 photos with 60 items of RENDERED boxes, not DeepFashion2: validation" in shown
    for heading in ("AP", "AP50", "AP75", "APS", "APM", "APL", "all categories"):
        assert heading in shown
    assert "sling dress" not in shown
    assert "13 sling dress" in evaluate(file, "--truth", truth, "--per-category").stdout


def test_warnings_stand_on_standard_error(files) -> None:
    file, truth = files
    file.write_text("[]")
    done = evaluate(file, "--truth", truth)
    assert done.stderr == f"warning: {file}: there are no detections at all\n"
    assert "0.000" in done.stdout
    assert json.loads(evaluate(file, "--truth", truth, "--json").stdout)["warnings"] == [done.stderr[9:-1]]


def test_wrong_input_is_one_message(files) -> None:
    file, truth = files
    with pytest.raises(InputError, match="expected a list of detections"):
        raise evaluate(truth, "--truth", truth).exception
    with pytest.raises(InputError, match="is no COCO ground truth"):
        raise evaluate(file, "--truth", file).exception
    file.write_text('[{"image_id": 77, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]')
    with pytest.raises(InputError, match=r"\[0\]: image_id: 77 is not among the 40 photos"):
        raise evaluate(file, "--truth", truth).exception
