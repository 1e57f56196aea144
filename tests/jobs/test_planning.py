"""`score --plan` and `submit --plan`: what would run, what it takes, and that nothing runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import embedding_shards, preflight
from harness.data.deepfashion2 import read_split
from harness.data.exports import write_coco_results
from harness.jobs import planning
from harness.jobs.planning import plan
from harness.pipeline import Pipeline
from harness.ranking.whitening import fit_bytes
from harness.spec import BoxSource
from harness.types import Detections, InputError
from harness.workplace import Workplace
from tests.commands import call, ok, refused

D = 512  # of the histogram


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "data"
    ok("data", "render", folder, "--train", 16, "--validation", 48, "--test", 4, "--workers", 1)
    return folder


@pytest.fixture
def work(data: Path, tmp_path: Path) -> Path:
    """Two detectors that were made elsewhere; the histogram needs no training."""
    items = read_split(data, "validation").items
    assert items is not None
    random = np.random.default_rng(0)
    for name in ("d6", "d7"):
        boxes = Detections(items.image_ids, items.boxes_xyxy, random.uniform(0.3, 1, len(items)), items.category_ids)
        write_coco_results(tmp_path / f"{name}.json", boxes)
        ok("enter", "detections", name, "--boxes", tmp_path / f"{name}.json", "--data", data, "--work", tmp_path / "w")
    return tmp_path / "w"


def told(spec: str, data: Path, work: Path, *options: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        ok("score", spec, "--data", data, "--work", work, "--plan", "--json", *options),
    )
    return found


def states(found: dict[str, Any]) -> dict[str, bool]:
    return {stage["name"]: stage["is_there"] for stage in found["stages"]}


def test_before_and_after_a_run(data: Path, work: Path) -> None:
    spec, place = "histogram + WBF(d6,d7)", ("--data", data, "--work", work)
    before = told(spec, data, work)
    names = ["detect d6", "detect d7", "fuse WBF(d6,d7)", "embed histogram", "search", "write JSON"]
    assert states(before) == dict.fromkeys(names, False)
    assert all(stage["is_guessed"] for stage in before["stages"])
    assert not list((work / "store").glob("*/*/manifest.json")), "a look makes nothing"
    assert before["fits"] is True
    ok("detect", "WBF(d6,d7)", *place)
    between = told(spec, data, work)
    assert states(between) == {name: name[:4] in ("dete", "fuse") for name in names}
    assert not any(stage["is_guessed"] for stage in between["stages"])
    ok("score", spec, *place)
    assert states(told(spec, data, work)) == dict.fromkeys(names, True)
    assert told(spec, data, work)["needed"] == {"memory_bytes": 0, "disk_bytes": 0}
    every = told(spec, data, work, "--every-box")
    assert states(every) == {name: name not in ("search", "write JSON") for name in names}
    said = ok("score", spec, *place, "--plan")
    assert "on RENDERED validation: 0 of 6 stages would run" in said
    assert "disk: 0.000 GB needed" in said


def test_the_sizes_are_those_of_what_is_written(data: Path, work: Path) -> None:
    spec, place = "histogram + d6", ("--data", data, "--work", work)
    ok("detect", "d6", *place)
    stages = {stage["name"]: stage for stage in told(spec, data, work, "--every-box")["stages"]}
    ok("score", spec, *place, "--every-box")
    manifest = {path.parent.parent.name: path for path in (work / "store").glob("*/*/manifest.json")}
    files = {stage: json.loads(path.read_text())["files"] for stage, path in manifest.items()}
    rows = stages["embed histogram"]["rows"]
    assert stages["embed histogram"]["disk_bytes"] == 2 * 2 * D * rows  # its shards, and the whole beside them
    assert files["embed"]["vectors.npy"]["bytes"] == 2 * D * rows + 128
    size = files["submission"]["results.json"]["bytes"]
    assert abs(stages["write JSON"]["disk_bytes"] - size) < 0.1 * size
    written = sum(one["bytes"] for one in files["search"].values())
    assert 0 <= written - stages["search"]["disk_bytes"] <= 256  # two headers


def test_steps_are_stages(data: Path, work: Path) -> None:
    spec, place = "histogram + GT | pca(8,fit=train) | qe(2) | rerank(k1=4,k2=2)", ("--data", data, "--work", work)
    names = [
        "embed histogram",
        "embed histogram of training photos",
        "pca(8,fit=train)",
        "qe(2)",
        "rerank(k1=4,k2=2,lambda=0.3)",
        "write JSON",
    ]
    assert states(told(spec, data, work)) == dict.fromkeys(names, False)
    ok("score", spec, *place)
    assert states(told(spec, data, work)) == dict.fromkeys(names, True)
    other = told("histogram + GT | pca(8,fit=train) | qe(3) | rerank(k1=4,k2=2)", data, work)
    assert [stage["is_there"] for stage in other["stages"]] == [True, True, True, False, False, False]


def test_what_fitting_a_projection_will_refuse_is_refused_before_anything_is_embedded(data: Path, work: Path) -> None:
    pipeline = pipeline_over(data, work)
    with pytest.raises(InputError, match=r"pca\(513\): there are 512 dimensions before it"):
        plan(pipeline, "histogram + GT | pca(513)")
    with pytest.raises(InputError, match=r"whiten\(9\): there are 8 dimensions before it"):
        plan(pipeline, "histogram + GT | pca(8) | whiten(9)")
    rows = {fit: plan(pipeline, f"histogram + GT | pca(8,fit={fit})") for fit in ("gallery", "split", "train")}
    memory = {
        fit: next(one.memory_bytes for one in found.stages if one.name[:3] == "pca") for fit, found in rows.items()
    }
    boxes = pipeline.boxes(BoxSource("GT")).detections
    training = pipeline.of_training_photos().boxes(BoxSource("GT")).detections
    num_gallery = int((~pipeline.split.photos.consumer_mask(boxes.image_ids)).sum())
    for fit, count in (("gallery", num_gallery), ("split", len(boxes)), ("train", len(training))):
        assert memory[fit] == 2 * fit_bytes(count, [D], 8), "half of what is free is taken"


def test_reranking_counts_the_encoding_of_every_row(data: Path, work: Path) -> None:
    few, many = (
        next(one for one in plan(pipeline_over(data, work), f"histogram + GT | rerank(k1={k1},k2={k2})").stages
             if one.name.startswith("rerank"))
        for k1, k2 in ((4, 2), (20, 6))
    )  # fmt: skip
    num_rows = len(pipeline_over(data, work).boxes(BoxSource("GT")).detections)
    assert many.memory_bytes - few.memory_bytes == num_rows * (28 * (21 - 5) + 24 * (20 * 6 // 2 - 4 * 2 // 2))


def test_the_test_split_is_planned_without_annotations(data: Path, work: Path, tmp_path: Path) -> None:
    image_ids = read_split(data, "test").photos.image_ids
    one = np.ones(len(image_ids))
    boxes = Detections(image_ids, np.tile([4.0, 4, 60, 60], (len(image_ids), 1)), one, one.astype(np.int64))
    write_coco_results(tmp_path / "t.json", boxes)
    place = ("--data", data, "--work", work, "--split", "test")
    ok("enter", "detections", "d6", "--boxes", tmp_path / "t.json", *place)
    out = tmp_path / "answer.json"
    found = json.loads(ok("submit", "histogram + d6", *place, "--out", out, "--plan", "--json"))
    assert (found["split"], found["rendered"]) == ("test", True)
    assert not out.exists()
    wrote = json.loads(ok("submit", "histogram + d6", *place, "--out", out, "--json"))
    assert wrote == {"file": str(out), "bytes": out.stat().st_size}


def pipeline_over(data: Path, work: Path) -> Pipeline:
    return Pipeline(Workplace(work), read_split(data, "validation"))


def test_too_little_room_is_refused_before_anything_starts(
    data: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = pipeline_over(data, work)
    for module in (preflight, planning):
        monkeypatch.setattr(module, "available_disk", lambda folder: 60_000)
    found = plan(pipeline, "histogram + GT")
    assert not found.fits
    with pytest.raises(InputError) as refusal:
        found.require()
    message = str(refusal.value)
    assert "embed histogram: needs about <0.001 GB of disk in" in message
    assert message.endswith("nothing was started. What would fit: --work on another disk")
    planned = call("score", "histogram + GT", "--data", data, "--work", work, "--plan")
    assert planned.exit_code == 1
    assert "it does not fit: --work on another disk" in planned.stdout
    asked = ("submit", "histogram + GT", "--data", data, "--work", work, "--split", "validation")
    assert call(*asked, "--plan", "--json").exit_code == 1
    assert call(*asked).exit_code == 2, "no --out"
    # The stage itself looks once more, and says so whoever asks for it.
    assert "embed histogram: needs about" in refused("embed", "histogram + GT", "--data", data, "--work", work)
    assert not list((work / "store" / "embed").glob("*/part-*"))


def test_guesses_refuse_nothing(data: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = pipeline_over(data, work)
    for module in (preflight, planning):
        monkeypatch.setattr(module, "available_disk", lambda folder: 1)
    found = plan(pipeline, "histogram + d6")
    assert not found.fits
    found.require()


def test_what_would_fit_is_counted() -> None:
    sizes = {f"m{n}": 1024 for n in range(16)}
    assert embedding_shards.embedding_bytes(sizes, 590_000) == 2 * 1024 * 590_000 * 17  # 20.5 GB
    hints = embedding_shards.embedding_hints(sizes, 590_000, preflight.Room(disk_bytes=10_000_000_000))
    assert hints == [
        "7 of the 16 models (m0,m1,m2,m3,m4,m5,m6), 9.7 GB",
        "a budget of 287k boxes (BOXES@287k), 10.0 GB",
        "--work on another disk",
    ]
    enough = embedding_shards.embedding_hints(sizes, 590_000, preflight.Room(disk_bytes=21_000_000_000))
    assert enough == ["--work on another disk"]
    assert embedding_shards.embedding_hints({}, 0, preflight.Room(disk_bytes=0)) == ["--work on another disk"]


def test_what_embedding_needs_of_what_is_left(tmp_path: Path) -> None:
    from harness.artifacts import Draft
    from harness.embedding_shards import BoxShare, embedding_needs

    drafts = {name: Draft(tmp_path / "store" / "embed" / name) for name in ("m4", "m9")}
    count = 30
    one = np.ones(count, np.int64)
    boxes = Detections(one, np.tile([0.0, 0, 1, 1], (count, 1)), one * 1.0, one)
    left = [BoxShare(1, boxes, {"m4": "-a.npy", "m9": "-b.npy"}), BoxShare(2, boxes.take(slice(0, 10)), {"m9": "-c"})]
    needs = embedding_needs(drafts, {"m4": 100, "m9": 8}, 90, left, 8)
    # Two shards are missing, of 30 boxes by both models and of 10 by m9; joining m4 writes all of its 90 rows anew.
    assert needs.disk_bytes == 2 * (30 * 108 + 10 * 8 + 90 * 100)
    assert needs.memory_bytes == 2 * 30 * 108 * 2, "of eight processes only two have a shard"
    assert (needs.what, needs.where) == ("embed m4,m9", tmp_path / "store" / "embed")
    assert embedding_needs({}, {}, 0, [], 1).disk_bytes == 0
