"""Disks that fill and files that are damaged: the message names the file, and after mending the run goes on."""

import errno
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import shards
from harness.artifacts import (
    ArtifactError,
    Recipe,
    Store,
    file_sha256,
    read_detections,
    write_array,
    write_detections,
    write_half_rows,
    write_json,
)
from harness.data import photos
from harness.data.deepfashion2 import read_split
from harness.data.exports import write_coco_results
from harness.types import Detections, InputError
from tests.commands import ok, refused

SPEC = "histogram + WBF(d6,d7)"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "data"
    ok("data", "render", folder, "--train", 16, "--validation", 48, "--test", 4, "--workers", 1)
    return folder


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which all stages of the spec are done."""
    folder = tmp_path_factory.mktemp("made")
    items = read_split(data, "validation").items
    assert items is not None
    random = np.random.default_rng(0)
    for name in ("d6", "d7"):
        boxes = Detections(items.image_ids, items.boxes_xyxy, random.uniform(0.3, 1, len(items)), items.category_ids)
        write_coco_results(folder / f"{name}.json", boxes)
        ok("enter", "detections", name, "--boxes", folder / f"{name}.json", "--data", data, "--work", folder / "w")
    ok("score", SPEC, "--data", data, "--work", folder / "w", "--every-box")
    return folder / "w"


@pytest.fixture
def work(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "w"))


def score(data: Path, work: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ok("score", SPEC, "--data", data, "--work", work, "--every-box", "--json"))
    return found["acc"]


def refusal(data: Path, work: Path) -> str:
    return refused("score", SPEC, "--data", data, "--work", work, "--every-box")


class FullDisk:
    """Files whose path has a text in it cannot be written to the end, from the nth on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, text: str, after: int = 0) -> None:
        self.left = after
        fsync = os.fsync

        def full(number: int) -> None:
            if text in os.readlink(f"/proc/self/fd/{number}"):
                if self.left == 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self.left -= 1
            fsync(number)

        monkeypatch.setattr(os, "fsync", full)


STAGES = {
    "detect": "boxes.parquet",
    "fuse": "boxes.parquet",
    "embed": "part-00000-",
    "search": "gallery_rows.npy",
    "submission": "results.json",
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_disk_that_fills_at_any_stage(
    stage: str, data: Path, work: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = list(STAGES)[list(STAGES).index(stage) :]
    for name in later:
        shutil.rmtree(work / "store" / name)
    with monkeypatch.context() as patch:
        FullDisk(patch, f"/store/{stage}/")
        message = refusal(data, work)
    assert f"{work / 'store' / stage}/" in message
    assert STAGES[stage] in message
    assert "cannot be written, there is no room (No space left on device); make room and run again" in message
    assert not [path for path in work.rglob("*") if "part" in path.suffix]
    assert score(data, work) == score(data, finished)


def test_shards_of_embeddings_are_kept(data: Path, work: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "PHOTOS_A_SHARD", 8)
    for name in ("embed", "search", "submission"):
        shutil.rmtree(work / "store" / name)
    with monkeypatch.context() as patch:
        FullDisk(patch, "/store/embed/", after=2 * 3)  # what a shard took, the shard and its mark, twice
        assert "part-00002-" in refusal(data, work)
    assert len(list(work.glob("store/embed/*/part-*.npy"))) == 2
    decoded: list[Path] = []
    decode = photos.decode_rgb

    def watched(path: Path) -> Any:
        decoded.append(path)
        return decode(path)

    monkeypatch.setattr(photos, "decode_rgb", watched)
    assert score(data, work) == score(data, finished)
    assert 0 < len(decoded) <= 48 - 2 * 8


@pytest.mark.parametrize("name", ["answer.json", "answer.zip"])
def test_a_disk_that_fills_under_what_is_handed_in(name: str, data: Path, work: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / name
    submit = ("submit", SPEC, "--data", data, "--work", work, "--split", "validation", "--out", out)
    ok(*submit)
    whole = out.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        message = refused(*submit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"{out}: cannot be written, there is no room (File too large)" in message
    assert [path.name for path in out.parent.iterdir()] == [name]
    assert out.read_bytes() == whole, "the old answer is as it was"


BOXES = Detections(
    np.arange(40_000),
    np.tile([1.0, 2, 3, 4], (40_000, 1)) + np.random.default_rng(0).random((40_000, 1)),
    np.random.default_rng(1).random(40_000),
    np.ones(40_000, np.int64),
)
ROWS = np.ones((30_000, 4), np.float16)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 200 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    "write",
    [
        partial(write_array, rows=ROWS),
        partial(write_half_rows, shape=(30_000, 4), chunks=[ROWS]),
        partial(write_detections, detections=BOXES),
        partial(write_json, value=list(range(100_000))),
    ],
    ids=["array", "half rows", "detections", "json"],
)
def test_a_disk_that_is_really_full(write: Any, small_disk: Path) -> None:
    """numpy's own writer tells of a full disk without the system's number for it."""
    store, recipe = Store(small_disk / "store"), Recipe("embed", 1)
    small, large = partial(write_array, rows=ROWS[:10]), write

    def make(draft: Any) -> dict[str, Any]:
        draft.shard(0, ".npy", small)
        draft.write("whole", large)
        return {}

    with pytest.raises(InputError, match=r"whole: cannot be written, there is no room \(No space left on device\)"):
        store.get(recipe, make)
    assert sorted(path.name for path in store.folder(recipe).iterdir()) == ["part-00000.npy", "part-00000.npy.sha256"]
    subprocess.run(["mount", "-o", "remount,size=20M", str(small_disk)], check=True)
    assert store.get(recipe, make)[1]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64, ">f4"])
@pytest.mark.parametrize("shape", [(0,), (5,), (3, 4), (0, 4), (2, 3, 4)])
def test_arrays_come_back(shape: tuple[int, ...], dtype: Any, order: Any, tmp_path: Path) -> None:
    rows = np.asarray(np.arange(np.prod(shape)).reshape(shape), dtype=dtype, order=order)
    write_array(tmp_path / "rows.npy", rows)
    found = np.load(tmp_path / "rows.npy", mmap_mode="r", allow_pickle=False)
    assert (found.shape, found.dtype) == (rows.shape, rows.dtype)
    assert np.array_equal(found, rows)


# --- damaged files ---------------------------------------------------------------------------------


def only(work: Path, stage: str) -> Path:
    (folder,) = (path.parent for path in work.glob(f"store/{stage}/*/manifest.json"))
    return folder


def spoil(work: Path, change: Any) -> Path:
    """Change the stored embeddings and, as a careless hand would, the manifest along with them."""
    shutil.rmtree(work / "store" / "search")
    folder = only(work, "embed")
    path = folder / "vectors.npy"
    vectors = change(np.load(path))
    np.save(path, vectors)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["vectors.npy"] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return path


def row_5(value: float) -> Any:
    def change(vectors: Any) -> Any:
        vectors[5] = value
        return vectors

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (row_5(np.nan), "embeddings of histogram: row 5 is not finite"),
        (row_5(0), "embeddings of histogram: row 5 is zero"),
        (row_5(1), "embeddings of histogram: row 5 is not of unit length"),
        (lambda vectors: vectors[:-1], "rows, the box set"),
    ],
)
def test_embeddings_that_cannot_be_are_named_by_file_and_row(
    change: Any, message: str, data: Path, work: Path, finished: Path
) -> None:
    path = spoil(work, change)
    said = refusal(data, work)
    assert said.startswith(f"{path}: ")
    assert message in said
    assert f"remove the folder {path.parent} and run again" in said
    shutil.rmtree(path.parent)
    assert score(data, work) == score(data, finished)


@pytest.mark.parametrize("stage", ["detect", "fuse", "embed", "search", "submission"])
@pytest.mark.parametrize("damage", ["short", "longer", "other", "gone"])
def test_a_damaged_file_of_the_store_is_named(stage: str, damage: str, data: Path, work: Path, finished: Path) -> None:
    folder = next(path.parent for path in work.glob(f"store/{stage}/*/manifest.json"))
    path = next(path for path in sorted(folder.iterdir()) if path.name != "manifest.json")
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = len(whole) // 2
        other = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
        path.write_bytes({"short": whole[:middle], "longer": whole + b"\0", "other": other}[damage])
    said = refusal(data, work)
    assert said.startswith(f"{path}: ")
    assert f"remove the folder {folder} and run again, it will be made anew" in said
    shutil.rmtree(folder)
    assert score(data, work) == score(data, finished)


def test_parquet_that_is_damaged_anywhere_is_an_error_with_a_name_or_nothing(tmp_path: Path) -> None:
    """Where a checksum lacks, boxes may be others; what cannot be read must not be a bare error of the reader's."""
    path = tmp_path / "boxes.parquet"
    write_detections(path, BOXES.take(slice(0, 200)))
    whole, named = path.read_bytes(), 0
    for place in range(0, len(whole), max(1, len(whole) // 300)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            read_detections(path)
        except ArtifactError as error:
            named += str(error).startswith(f"{path}: is not a file of boxes")
    assert named > 20
