"""`run.py detect`: several detectors and processes, settings that are kept, and everything that can go wrong."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from harness import shards
from harness.artifacts import file_sha256, read_detections
from harness.detection import inference, prefetch
from harness.types import Detections
from tests.commands import call, ok, refused

ROOT = Path(__file__).parents[2]
DETECTORS = ("ATSS", "CascadeMaskRCNN")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "data"
    ok("data", "render", folder, "--train", 24, "--validation", 32, "--test", 16, "--workers", 1)
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Detectors that are hardly trained, and nothing else."""
    folder = tmp_path_factory.mktemp("work")
    for name in DETECTORS:
        ok("train", "detector", name, "--data", data, "--work", folder, "--scale", "tiny", "--steps", 3)
    return folder


@pytest.fixture
def work(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "work"))


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "PHOTOS_A_SHARD", 8)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The photos that are decoded, as they are."""
    seen: list[Path] = []
    decode = prefetch.decode_rgb

    def watched(path: Path) -> Any:
        seen.append(path)
        return decode(path)

    monkeypatch.setattr(prefetch, "decode_rgb", watched)
    return seen


def told(*arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ok("detect", *arguments, "--json"))
    return found


def boxes_of(work: Path, report: dict[str, Any]) -> Detections:
    stage = "fuse" if report["name"].startswith("WBF") else "detect"
    return read_detections(work / "store" / stage / report["address"] / "boxes.parquet")


def same(one: Detections, other: Detections) -> None:
    assert one.image_ids.tolist() == other.image_ids.tolist()
    assert one.category_ids.tolist() == other.category_ids.tolist()
    np.testing.assert_allclose(one.boxes_xyxy, other.boxes_xyxy, atol=1e-3)


def test_every_photo_is_decoded_once_for_all_that_is_missing(data: Path, work: Path, decoded: list[Path]) -> None:
    # WBF_2 needs both detectors, and so do their names: 32 photos, not 128.
    found = told("CascadeMaskRCNN", "WBF_2", "ATSS", "--data", data, "--work", work)
    assert len(decoded) == 32
    assert [one["name"] for one in found["boxes"]] == ["CascadeMaskRCNN", "WBF_2", "ATSS"]
    assert list(found["boxes"][1]["settings"]) == ["ATSS", "CascadeMaskRCNN"]
    assert found["rendered"] is True
    assert all(0 <= one["ap"]["ap50"] <= 1 for one in found["boxes"])
    alone = Path(shutil.copytree(work, work.with_name("alone"), ignore=shutil.ignore_patterns("store")))
    for one in found["boxes"]:
        again = told(one["name"], "--data", data, "--work", alone)["boxes"][0]
        same(boxes_of(work, one), boxes_of(alone, again))
        assert again["address"] == one["address"]
    decoded.clear()
    told("WBF_2", "--data", data, "--work", work)
    assert decoded == []


def test_it_says_what_it_did(data: Path, work: Path) -> None:
    said = ok("detect", "ATSS", "--data", data, "--work", work, "--flip", "--max-per-image", 3)
    assert "ATSS: scale 1, with the mirrored photo, 32 bits, scores from 0.03, at most 3 boxes a photo" in said
    assert "boxes of ATSS on RENDERED validation, kept in" in said
    assert "AP50" in said
    assert "large" in said


def test_a_split_without_annotations_has_boxes_and_no_ap(data: Path, work: Path) -> None:
    said = ok("detect", "ATSS", "--data", data, "--work", work, "--split", "test")
    assert "boxes of ATSS on RENDERED test" in said
    assert "AP50" not in said
    assert told("ATSS", "--data", data, "--work", work, "--split", "test")["boxes"][0]["ap"] is None


# --- settings -----------------------------------------------------------------------------------


def params(work: Path) -> list[dict[str, Any]]:
    manifests = (json.loads(path.read_text()) for path in work.glob("store/detect/*/manifest.json"))
    return sorted((one["recipe"]["params"] for one in manifests), key=str)


def test_settings_are_of_this_call_unless_they_are_kept(data: Path, work: Path) -> None:
    place = ("--data", data, "--work", work)
    plain = told("ATSS", *place)["boxes"][0]["address"]
    flipped = told("ATSS", *place, "--flip")["boxes"][0]["address"]
    assert flipped != plain
    assert params(work) == [{"flip": True}, {}]
    assert told("ATSS", *place)["boxes"][0]["address"] == plain
    kept = told("ATSS", *place, "--flip", "--keep")
    assert kept["kept"] is True
    assert json.loads((work / "inference.json").read_text()) == {"ATSS": {"flip": True}}
    assert told("ATSS", *place)["boxes"][0]["address"] == flipped
    score = json.loads(ok("score", "histogram + ATSS", *place, "--json"))
    assert score["num_queries"] > 0
    shown = ok("detect", "ATSS", *place)
    assert "with the mirrored photo" in shown
    # What is asked for on the command line replaces what was kept, and does not add to it.
    assert params(work) == [{"flip": True}, {}]
    told("ATSS", *place, "--precision", "bf16")
    assert {"precision": "bf16"} in params(work)
    assert "from now on the detectors look as their recipes say" in ok("detect", "ATSS", *place, "--keep")
    assert json.loads((work / "inference.json").read_text()) == {}
    assert told("ATSS", *place)["boxes"][0]["address"] == plain


def test_keeping_for_a_fusion_keeps_for_its_members(data: Path, work: Path) -> None:
    place = ("--data", data, "--work", work)
    told("WBF_2", *place, "--scales", "1.25,1", "--score-threshold", 0.1, "--keep")
    changes = {"scales": [1.0, 1.25], "score_threshold": 0.1}
    assert json.loads((work / "inference.json").read_text()) == dict.fromkeys(DETECTORS, changes)
    assert params(work) == [changes, changes]


@pytest.mark.parametrize("text", ["{", "[]", '{"ATSS": 3}', '{"ATSS": {"flop": true}}', '{"ATSS": {"scales": [0]}}'])
def test_a_damaged_file_of_settings_is_named(text: str, data: Path, work: Path) -> None:
    (work / "inference.json").write_text(text)
    message = refused("detect", "ATSS", "--data", data, "--work", work)
    assert f"{work / 'inference.json'}: is damaged" in message
    assert "remove it" in message


def test_a_damaged_file_of_settings_is_told_before_detection(data: Path, work: Path, monkeypatch) -> None:
    # It was told after the last photo, with the advice to detect with --keep again.
    def forbidden(*_: object) -> None:
        raise AssertionError("photos were looked at")

    monkeypatch.setattr("harness.box_stages.detect_in_shards", forbidden)
    (work / "inference.json").write_text("{")
    message = refused("detect", "ATSS", "--data", data, "--work", work, "--score-threshold", 0.31, "--keep")
    assert f"{work / 'inference.json'}: is damaged" in message


@pytest.mark.parametrize(
    "options",
    [("--scales", "1,a"), ("--scales", "0"), ("--scales", "1,1"), ("--score-threshold", "2"), ("--devices", "0"),
     ("--precision", "8"), ("--max-per-image", "0"), ("--batch-size", "0"), ("--threads", "0")],
)  # fmt: skip
def test_wrong_options_are_wrong_usage(options: tuple[str, str], data: Path, work: Path) -> None:
    result = call("detect", "ATSS", "--data", data, "--work", work, *options)
    assert result.exit_code == 2
    assert options[0] in result.output


def test_what_is_no_detector(data: Path, work: Path) -> None:
    place = ("--data", data, "--work", work)
    assert "GT: is no detector" in refused("detect", "ATSS", "GT", *place)
    assert "CenterNet has not been trained here" in refused("detect", "WBF_3", *place)
    assert not (work / "store").exists()


# --- processes and interruptions ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("small_shards")
def test_two_processes_find_what_one_finds(data: Path, work: Path) -> None:
    one = told("ATSS", "--data", data, "--work", work)["boxes"][0]
    before = boxes_of(work, one)
    shutil.rmtree(work / "store")
    two = told("ATSS", "--data", data, "--work", work, "--devices", 2, "--batch-size", 5, "--threads", 3)["boxes"][0]
    assert two["address"] == one["address"]
    same(boxes_of(work, two), before)


@pytest.mark.usefixtures("small_shards")
def test_a_run_goes_on_at_the_first_missing_shard(
    data: Path, work: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ("--data", data, "--work", work)
    expected = boxes_of(work, told("ATSS", *place)["boxes"][0])
    shutil.rmtree(work / "store")
    together, calls = inference.detect_together, []

    def interrupted(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return together(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(inference, "detect_together", interrupted)
        assert call("detect", "ATSS", *place).exit_code != 0
    assert len(list(work.glob("store/detect/*/part-*.parquet"))) == 2
    decoded.clear()
    # The other detector has no shard yet; of the first, 16 of 32 photos are done.
    found = told("ATSS", *place)["boxes"][0]
    assert len(decoded) == 16
    same(boxes_of(work, found), expected)


SCRIPT = """
import sys
from harness import shards
shards.PHOTOS_A_SHARD = 2
from run import main
if __name__ == "__main__":
    main()
"""


def start(work: Path, *arguments: object) -> subprocess.Popen[str]:
    script = work.parent / "detect.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), "detect", *map(str, arguments), "--work", str(work)]
    paths = {"PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | paths)


@pytest.mark.slow
def test_killed_with_two_processes_it_goes_on(
    data: Path, work: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = boxes_of(work, told("ATSS", "--data", data, "--work", work)["boxes"][0])
    shutil.rmtree(work / "store")
    child = start(work, "ATSS", "--data", data, "--devices", 2)
    while child.poll() is None and len(list(work.glob("store/detect/*/part-*.sha256"))) < 3:
        time.sleep(0.005)
    assert child.poll() is None, child.communicate()
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    time.sleep(1)  # the workers die with it
    done = len(list(work.glob("store/detect/*/part-*.sha256")))
    time.sleep(1)
    assert len(list(work.glob("store/detect/*/part-*.sha256"))) == done
    monkeypatch.setattr(shards, "PHOTOS_A_SHARD", 2)
    decoded.clear()
    same(boxes_of(work, told("ATSS", "--data", data, "--work", work)["boxes"][0]), expected)
    assert len(decoded) == 32 - 2 * done
    assert not list(work.rglob("store/**/*.part"))


# --- what can be wrong with files ---------------------------------------------------------------


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_broken_photo_is_named_and_the_run_goes_on_when_it_is_replaced(
    damage: str, data: Path, work: Path, tmp_path: Path, decoded: list[Path]
) -> None:
    expected = boxes_of(work, told(*DETECTORS, "--data", data, "--work", work)["boxes"][1])
    shutil.rmtree(work / "store")
    broken = Path(shutil.copytree(data, tmp_path / "data"))
    path = broken / "validation" / "image" / "000020.jpg"
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"no photo at all"}[damage])
    message = refused("detect", *DETECTORS, "--data", broken, "--work", work)
    assert str(path) in message
    assert "restore the photo" in message
    assert len(list(work.glob("store/detect/*/part-*.parquet"))) == 4  # two shards of each detector
    path.write_bytes(whole)
    decoded.clear()
    found = told(*DETECTORS, "--data", broken, "--work", work)["boxes"]
    assert len(decoded) == 16  # the shard of the photo, and the one that had not been begun
    same(boxes_of(work, found[1]), expected)


@pytest.mark.usefixtures("small_shards")
def test_shards_of_other_weights_or_settings_are_not_taken(
    data: Path, work: Path, tmp_path: Path, decoded: list[Path]
) -> None:
    broken = Path(shutil.copytree(data, tmp_path / "data"))
    path = broken / "validation" / "image" / "000030.jpg"
    whole = path.read_bytes()
    path.write_bytes(b"")
    refused("detect", "ATSS", "--data", broken, "--work", work)
    path.write_bytes(whole)
    decoded.clear()
    told("ATSS", "--data", broken, "--work", work, "--flip")
    assert len(decoded) == 32
    for part in work.glob("store/detect/*/part-*.parquet"):
        part.write_bytes(part.read_bytes()[:-1])  # damaged since
    decoded.clear()
    told("ATSS", "--data", broken, "--work", work)
    assert len(decoded) == 32


def test_photos_without_garments_and_of_odd_shapes(data: Path, work: Path, tmp_path: Path) -> None:
    odd = Path(shutil.copytree(data, tmp_path / "data"))
    for number, shape in enumerate([(300, 200), (1, 1), (2000, 1), (1, 2000)], start=1):
        cv2.imwrite(str(odd / "test" / "image" / f"{number:06d}.jpg"), np.full((*shape, 3), 255, np.uint8))
    place = ("--data", odd, "--work", work, "--split", "test")
    found = boxes_of(work, told("ATSS", *place)["boxes"][0])
    sides = {1: [200, 300] * 2, 2: [1, 1] * 2, 3: [1, 2000] * 2, 4: [2000, 1] * 2}
    for image_id, limits in sides.items():
        assert (found.take(found.image_ids == image_id).boxes_xyxy <= limits).all()
    nothing = told(*DETECTORS, *place, "--score-threshold", 0.999)["boxes"]
    assert [one["num_boxes"] for one in nothing] == [0, 0]
    assert told("WBF_2", *place, "--score-threshold", 0.999)["boxes"][0]["num_boxes"] == 0


def forge(folder: Path) -> None:
    """Let the card speak of whatever weights are there."""
    card = json.loads((folder / "card.json").read_text())
    card["weights_sha256"] = file_sha256(folder / "weights.pt")
    (folder / "card.json").write_text(json.dumps(card))


def test_weights_that_are_not_this_networks(data: Path, work: Path) -> None:
    place = ("--data", data, "--work", work)
    folder = work / "models" / "detectors" / "ATSS"
    weights = folder / "weights.pt"
    whole = weights.read_bytes()
    other = work / "models" / "detectors" / "CascadeMaskRCNN" / "weights.pt"
    shutil.copyfile(other, weights)
    forge(folder)
    message = refused("detect", "ATSS", *place)
    assert f"{weights}: are not the weights of this network, ATSS after atss/" in message
    assert "of another network" in message
    assert "\n" not in message
    for damaged in (whole[:-3000], whole[:100], b"", b"no weights"):
        weights.write_bytes(damaged)
        forge(folder)
        message = refused("detect", "ATSS", *place)
        assert f"{weights}: is no file of weights, or a damaged one" in message
        assert "\n" not in message
    torch.save([1, 2], weights)
    forge(folder)
    assert "expected tensors by name, got a list" in refused("detect", "ATSS", *place)
    weights.write_bytes(whole)
    forge(folder)
    ok("detect", "ATSS", *place)


def test_a_full_disk_is_one_message_and_the_run_goes_on(
    data: Path, work: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file may grow beyond 8 KiB, as on a disk that is nearly full: shards of two photos fit, the whole does not."""
    monkeypatch.setattr(shards, "PHOTOS_A_SHARD", 2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        message = refused("detect", "ATSS", "--data", data, "--work", work)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "boxes.parquet: cannot be written, there is no room (File too large)" in message
    assert "make room and run again: what is finished is kept" in message
    assert len(list(work.glob("store/detect/*/part-*.parquet"))) == 16
    assert not list(work.rglob("*.part"))
    decoded.clear()
    assert told("ATSS", "--data", data, "--work", work)["boxes"][0]["num_boxes"] > 0
    assert decoded == []
