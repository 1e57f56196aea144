"""The rendered folder: DeepFashion2's layout, the same bytes every time, and nothing half-written."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from harness.data.rendered import RenderSettings, render
from harness.data.rendered.garments import NUM_LANDMARKS
from harness.types import CATEGORIES, InputError

SETTINGS = RenderSettings(seed=3, num_train=40, num_validation=60, num_test=16)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "data"
    render(folder, SETTINGS, workers=1)
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def annotations(folder: Path) -> dict[int, dict]:
    return {int(path.stem): json.loads(path.read_text()) for path in sorted((folder / "annos").iterdir())}


def items_of(annotation: dict) -> list[dict]:
    return [annotation[key] for key in sorted(annotation) if key.startswith("item")]


def test_files_are_those_of_deepfashion2_and_nothing_else(root: Path) -> None:
    expected = {"RENDERED.json", "README.txt"}
    for split, number in (("train", 40), ("validation", 60), ("test", 16)):
        truth = "test_truth" if split == "test" else split
        expected |= {f"{split}/image/{image_id:06d}.jpg" for image_id in range(1, number + 1)}
        expected |= {f"{truth}/annos/{image_id:06d}.json" for image_id in range(1, number + 1)}
    for split in ("val", "test"):
        expected |= {f"retrieval_{split}_{side}_information.json" for side in ("consumer", "shop")}
    assert set(digests(root)) == expected
    assert json.loads((root / "RENDERED.json").read_text())["settings"] == SETTINGS.model_dump()


@pytest.mark.parametrize("split", ["train", "validation", "test_truth"])
def test_annotations_have_the_documented_fields(root: Path, split: str) -> None:
    names = {
        "category_name", "category_id", "style", "bounding_box", "landmarks", "segmentation",
        "scale", "occlusion", "zoom_in", "viewpoint",
    }  # fmt: skip
    for image_id, annotation in annotations(root / split).items():
        image = cv2.imread(str(root / split.removesuffix("_truth") / "image" / f"{image_id:06d}.jpg"))
        height, width = image.shape[:2]
        items = [key for key in annotation if key not in ("source", "pair_id")]
        assert items == [f"item{n}" for n in range(1, len(items) + 1)]
        assert items
        assert annotation["source"] in ("user", "shop")
        assert type(annotation["pair_id"]) is int
        for item in items_of(annotation):
            assert set(item) == names
            assert item["category_name"] == CATEGORIES[item["category_id"] - 1]
            assert len(item["landmarks"]) == 3 * NUM_LANDMARKS[item["category_id"] - 1]
            for x, y, v in zip(*(item["landmarks"][k::3] for k in range(3)), strict=True):
                assert v in (0, 1, 2)
                assert (x, y) == (0, 0) if v == 0 else (0 <= x < width and 0 <= y < height)
            x1, y1, x2, y2 = item["bounding_box"]
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height
            assert all(type(value) is int for value in item["bounding_box"])
            assert item["style"] >= 0
            assert {item[name] for name in ("scale", "occlusion", "zoom_in", "viewpoint")} <= {1, 2, 3}


def test_landmark_numbers_are_deepfashion2s() -> None:
    assert sum(NUM_LANDMARKS) == 294
    assert len(NUM_LANDMARKS) == len(CATEGORIES)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_boxes_are_tight_round_the_polygons(root: Path, split: str) -> None:
    for annotation in annotations(root / split).values():
        for item in items_of(annotation):
            points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in item["segmentation"]])
            assert item["bounding_box"] == [*points.min(0), *(points.max(0) + 1)]


@pytest.mark.parametrize("split, truth", [("validation", "validation"), ("test", "test_truth")])
def test_consumer_photos_come_first_and_the_lists_name_them(root: Path, split: str, truth: str) -> None:
    sources = [annotation["source"] for _, annotation in sorted(annotations(root / truth).items())]
    num_consumer = sources.count("user")
    assert 0 < num_consumer < len(sources)
    assert sources == ["user"] * num_consumer + ["shop"] * (len(sources) - num_consumer)
    short = "val" if split == "validation" else "test"
    listed = {}
    for side in ("consumer", "shop"):
        listed[side] = json.loads((root / f"retrieval_{short}_{side}_information.json").read_text())["images"]
    assert [row["id"] for row in listed["consumer"] + listed["shop"]] == list(range(1, len(sources) + 1))
    assert len(listed["consumer"]) == num_consumer
    for row in listed["consumer"] + listed["shop"]:
        height, width = cv2.imread(str(root / split / "image" / row["file_name"])).shape[:2]
        assert (row["width"], row["height"]) == (width, height)


def test_pairs_have_both_sides_several_styles_and_strangers(root: Path) -> None:
    sides: dict[tuple[int, int], set[str]] = defaultdict(set)
    styles: dict[int, set[int]] = defaultdict(set)
    num_strangers = num_crowded = 0
    for annotation in annotations(root / "validation").values():
        items = items_of(annotation)
        num_crowded += len(items) > 1
        positive = [item["style"] for item in items if item["style"] > 0]
        assert len(positive) == len(set(positive)), "one photo shows one identity twice"
        for item in items:
            num_strangers += item["style"] == 0
            if item["style"]:
                sides[annotation["pair_id"], item["style"]].add(annotation["source"])
                styles[annotation["pair_id"]].add(item["style"])
    both = sum(side == {"user", "shop"} for side in sides.values())
    assert both >= 0.75 * len(sides)
    assert any(len(numbers) > 1 for numbers in styles.values())
    assert num_strangers > 0
    assert num_crowded > 5


def test_an_identity_is_of_one_category(root: Path) -> None:
    categories: dict[tuple[int, int], set[int]] = defaultdict(set)
    for annotation in annotations(root / "train").values():
        for item in items_of(annotation):
            if item["style"]:
                categories[annotation["pair_id"], item["style"]].add(item["category_id"])
    assert all(len(found) == 1 for found in categories.values())


def test_bytes_do_not_depend_on_the_number_of_processes(root: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    render(tmp_path / "two", SETTINGS, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert digests(tmp_path / "two") == digests(root)
    assert seen[-1] == (116, 116)
    assert seen == sorted(seen)


def test_another_seed_gives_other_photos(root: Path, tmp_path: Path) -> None:
    render(tmp_path / "other", SETTINGS.model_copy(update={"seed": 4}), workers=1)
    mine, other = digests(root), digests(tmp_path / "other")
    assert all(mine[name] != other[name] for name in mine if name.endswith(".jpg"))


def test_killed_and_started_again_ends_with_the_same_bytes(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    code = (
        "from pathlib import Path; from harness.data.rendered import RenderSettings, render; "
        f"render(Path({str(folder)!r}), RenderSettings(**{SETTINGS.model_dump()!r}), workers=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 60
    while len(list(folder.rglob("*.jpg"))) < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg") if not path.name.startswith(".")}
    assert 10 <= len(before) < 116
    assert not (folder / "RENDERED.json").exists()
    (folder / "train" / "image" / ".000040.jpg.1.tmp").write_bytes(b"half")
    render(folder, SETTINGS, workers=1)
    assert digests(folder) == digests(root)
    whole = [path for path in before if path.stat().st_mtime_ns == before[path]]
    assert len(whole) >= len(before) - 1, "finished photos were rendered again"


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for the processes in /proc")
def test_a_killed_parent_leaves_no_process_rendering(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    script = tmp_path / "go.py"
    settings = SETTINGS.model_copy(update={"num_train": 2000})
    script.write_text(
        "from pathlib import Path\nfrom harness.data.rendered import RenderSettings, render\n"
        f"if __name__ == '__main__':\n    render(Path({str(folder)!r}), RenderSettings(**{settings.model_dump()!r}))\n"
    )
    repository = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(repository)})
    deadline = time.monotonic() + 60
    while len(list(folder.rglob("*.jpg"))) < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert len(children) >= 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while any(_is_running(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_is_running(pid) for pid in children)
    assert len(list(folder.rglob("*.jpg"))) < 2000


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_complete_data_set_is_left_alone(root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    render(root, SETTINGS, workers=1)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_other_settings_are_refused(root: Path) -> None:
    with pytest.raises(InputError, match=re.escape(str(root / "RENDERED.json")) + ".*other settings"):
        render(root, SETTINGS.model_copy(update={"seed": 9}), workers=1)


def test_a_foreign_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        render(tmp_path, SETTINGS, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_marker_is_named(tmp_path: Path) -> None:
    (tmp_path / "RENDERED.json").write_text("{")
    with pytest.raises(InputError, match=r"RENDERED\.json: not JSON"):
        render(tmp_path, SETTINGS, workers=1)


def test_no_processes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers: expected at least 1, got 0"):
        render(tmp_path, SETTINGS, workers=0)


@pytest.mark.parametrize("field", ["num_train", "num_validation", "num_test"])
def test_settings_refuse_empty_splits_and_unknown_names(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        RenderSettings(**{field: 1})
    with pytest.raises(ValueError, match="photos"):
        RenderSettings(photos=3)
