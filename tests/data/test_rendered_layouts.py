"""Rendered training sources: read as the real ones are, faults found, never DeepFashion2's garments."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from harness.data.photos import decode_rgb
from harness.data.rendered import RenderSettings
from harness.data.rendered.layouts import LAYOUTS, LayoutSettings, render_layout
from harness.data.rendered.layouts.rendering import LAYOUTS as BY_NAME
from harness.data.rendered.plan import photos_of
from harness.data.sources import SOURCES, examine, read_source
from harness.types import SPLITS, InputError
from tests.commands import call, ok, refused

NUM_GARMENTS = 16


@pytest.fixture(scope="module", params=LAYOUTS)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    root = tmp_path_factory.mktemp("layouts") / request.param
    render_layout(root, LayoutSettings(layout=request.param, seed=5, num_garments=NUM_GARMENTS), workers=1)
    return request.param, root


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_there_is_a_layout_of_every_source() -> None:
    assert set(LAYOUTS) == set(SOURCES)


def test_every_garment_can_be_trained_on(source: tuple[str, Path]) -> None:
    name, root = source
    garments = read_source(name, root)
    assert garments.record.rendered
    assert len(set(garments.identities.tolist())) == NUM_GARMENTS
    views = Counter(garments.identities.tolist())
    assert min(views.values()) >= (1 if name == "Zalando" else 2)
    for row, path in enumerate(garments.photos):
        height, width = decode_rgb(path).shape[:2]
        boxes = garments.boxes_xyxy[garments.photo_rows == row]
        if name == "Street2Shop" and garments.is_consumer[garments.photo_rows == row].all():
            assert (boxes[:, 0] >= 0).all()
            assert (boxes[:, 2] <= width + 1).all()  # one box is planted a pixel off
            assert (boxes[:, 3] <= height).all()
        else:
            assert (boxes != boxes).all()


PLANTED = {
    "Street2Shop": {
        "photo is not there", "box of no area", "listed again", "photo of photos.txt has no file",
        "photo is in the training and in the test pairs", "item is in the training and in the test pairs",
        "photo of the sample is no JPEG, whatever its name says; it is read",
    },
    "DARN": {
        "photo is not there", "line cannot be read", "product of several categories",
        "photo is byte for byte another one of the same item",
    },
    "MVC": {
        "photo is not there", "address names another style", "address again", "list is not UTF-8; read as Windows-1252",
        "filename names another style than itemN; itemN counts", "photo is byte for byte another one of another item",
    },
    "MPV": {
        "photo is not there", "photo that no row names", "row of two items: no positive, each photo is its own item's",
    },
    "Zalando": {
        "photo is not there", "line of the test list pairs two items: no positive, each photo is its own item's",
        "photo of the sample is no JPEG, whatever its name says; it is read",
    },
}  # fmt: skip


def test_what_is_planted_is_found(source: tuple[str, Path]) -> None:
    name, root = source
    report = examine(name, root, decode=None)
    assert {one.kind for one in report.oddities} == PLANTED[name]
    assert report.num_matched >= (0 if name == "MVC" else NUM_GARMENTS - 1)
    assert report.ok


def test_product_numbers_recur_in_street2shop() -> None:
    layout = LAYOUTS["Street2Shop"](5, 60)
    lists = layout.lists({photo.file: {1: (0, 0, 9, 9)} for photo in layout.photos if photo.boxed})
    numbers = {
        (name, row["product"]) for name, text in lists.items() if "retrieval" in name for row in json.loads(text)
    }
    recurring = [number for number, count in Counter(number for _, number in numbers).items() if count > 1]
    assert len(numbers) == 60
    assert len(recurring) == 2


def test_mpv_and_zalando_share_photos(tmp_path: Path) -> None:
    for name in ("MPV", "Zalando"):
        render_layout(tmp_path / name, LayoutSettings(layout=name, seed=5, num_garments=12), workers=1)
    first, second = (Counter(digests(tmp_path / name).values()) for name in ("MPV", "Zalando"))
    assert sum((first & second).values()) == 2


def test_no_garment_is_deepfashion2s() -> None:
    settings = RenderSettings(seed=5, num_train=200, num_validation=60, num_test=20)
    theirs = {worn.garment for split in SPLITS for plan in photos_of(settings, split) for worn in plan.worn}
    seen = {name: {w.garment for p in BY_NAME[name](5, 60).photos for w in p.plan.worn} for name in LAYOUTS}
    assert all(len(garments) >= 60 and not garments & theirs for garments in seen.values())
    assert not seen["Street2Shop"] & seen["DARN"]
    assert len(seen["MPV"] & seen["Zalando"]) == 1


def test_the_same_settings_give_the_same_bytes_however_they_are_made(source: tuple[str, Path], tmp_path: Path) -> None:
    name, root = source
    settings = LayoutSettings(layout=name, seed=5, num_garments=NUM_GARMENTS)
    other = tmp_path / "again"

    class Stop(Exception):
        pass

    def stop(done: int, _total: int) -> None:
        if done == 9:
            raise Stop

    with pytest.raises(Stop):
        render_layout(other, settings, workers=1, progress=stop)
    assert not (other / "RENDERED.json").exists()
    render_layout(other, settings, workers=1)
    assert digests(other) == digests(root)


def test_two_processes_give_the_same_bytes(tmp_path: Path) -> None:
    settings = LayoutSettings(layout="Zalando", seed=2, num_garments=12)
    for workers in (1, 2):
        assert render_layout(tmp_path / str(workers), settings, workers=workers) == (12, 23)
    assert digests(tmp_path / "1") == digests(tmp_path / "2")


def test_a_folder_of_something_else_is_refused(source: tuple[str, Path]) -> None:
    name, root = source
    with pytest.raises(InputError, match="of other settings"):
        render_layout(root, LayoutSettings(layout=name, seed=6, num_garments=NUM_GARMENTS))
    with pytest.raises(ValidationError, match="expected one of Street2Shop"):
        LayoutSettings(layout="DeepFashion3")


def test_the_commands(tmp_path: Path) -> None:
    folder = tmp_path / "darn"
    told = ok("data", "render", folder, "--as", "DARN", "--garments", 12, "--seed", 3, "--workers", 1)
    assert "photos of 12 garments" in told
    shown = ok("data", "check", folder, "--source", "DARN")
    assert "num identities: 12" in shown
    assert "1 × photo is not there; first: image.txt: line" in shown
    assert "can be trained on, RENDERED data" in shown
    report = json.loads(ok("data", "check", folder, "--source", "DARN", "--json"))
    assert report["num_entries"] == report["num_garments"] + sum(
        one["count"] for one in report["oddities"] if one["left_out"]
    )
    assert "all_poseA_poseB_clothes.txt" in refused("data", "check", folder, "--source", "MPV")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--as", "MPV", "--train", 3], "MPV has no splits"),
        (["--as", "Other"], "there are DeepFashion2, Street2Shop"),
        (["--garments", 12], "DeepFashion2 is sized by --train"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(tmp_path: Path, options: list[object], message: str) -> None:
    done = call("data", "render", tmp_path / "x", *options)
    assert done.exit_code == 2
    assert message in " ".join(done.output.replace("│", " ").split())
