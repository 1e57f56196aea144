"""Copies go, every crop has one fate, and nothing else goes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from harness.data.duplicates import deduplicate
from harness.data.duplicates.looking import look
from harness.data.garments import NO_IDENTITY, Garments
from harness.data.rendered import RenderSettings, render
from harness.data.rendered.layouts import LAYOUTS, LayoutSettings, render_layout
from harness.data.rendered.layouts.drawing import items_of, shot
from harness.data.rendered.photo import take_photo
from harness.data.sources import read_source
from harness.retrieval.training_crops import collect
from harness.training.cards import TrainedOn
from tests.commands import call, ok

PICTURES = 12


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures 0.jpg … 11.jpg of different garments."""
    root = tmp_path_factory.mktemp("drawn")
    render_layout(root / "zalando", LayoutSettings(layout="Zalando", seed=9, num_garments=PICTURES), workers=1)
    for number in range(PICTURES):
        shutil.copy(root / f"zalando/women_top/{number:06d}_0.jpg", root / f"{number}.jpg")
    return root


def saved_again(path: Path, to: Path, quality: int = 85, scale: float = 0.9) -> Path:
    image = cv2.imread(str(path))
    assert image is not None
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    to.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(to), small, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return to


def garments(source: str, rows: list[tuple[Path, int]], boxes: list[list[float]] | None = None) -> Garments:
    """Whole photos, a row each, with their items; every second one a consumer's."""
    photos = list(dict.fromkeys(path for path, _ in rows))
    count = len(rows)
    return Garments(
        source=source,
        photos=photos,
        photo_rows=np.array([photos.index(path) for path, _ in rows], dtype=np.int64),
        boxes_xyxy=np.full((count, 4), np.nan) if boxes is None else np.array(boxes, dtype=np.float64),
        identities=np.array([item for _, item in rows], dtype=np.int64),
        is_consumer=np.arange(count) % 2 == 0,
        record=TrainedOn(fingerprint=source, split=source, num_photos=len(photos), image_ids_sha256="", rendered=True),
    )


def names(part: Garments) -> list[str]:
    return [part.photos[row].name for row in part.photo_rows.tolist()]


def counts(report) -> list[tuple[int, ...]]:
    return [
        (one.num_kept, one.num_unreadable, one.num_same_item, one.num_other_item, one.num_across, one.num_left_out)
        for one in report.sources
    ]


def test_copies_of_one_item_go(drawn, tmp_path):
    again = saved_again(drawn / "0.jpg", tmp_path / "again.jpg")
    part = garments("A", [(drawn / "0.jpg", 4), (drawn / "1.jpg", 4), (again, 4)])
    (kept,), report = deduplicate([part], tmp_path / "cache")
    assert names(kept) == ["0.jpg", "1.jpg"]
    assert counts(report) == [(2, 0, 1, 0, 0, 0)]
    assert report.sources[0].examples == {"same item": f"{again} (item 4) is {drawn / '0.jpg'} (item 4)"}
    assert kept.record.num_photos == 2
    assert kept.record.fingerprint == "A"


def test_one_crop_under_two_items_stays_with_the_first(drawn, tmp_path):
    again = saved_again(drawn / "0.jpg", tmp_path / "again.jpg")
    rows = [(drawn / "0.jpg", 7), (drawn / "1.jpg", 7), (again, 2), (drawn / "2.jpg", 2), (drawn / "3.jpg", 2)]
    (kept,), report = deduplicate([garments("A", rows)], tmp_path / "cache")
    assert names(kept) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert counts(report) == [(4, 0, 0, 1, 0, 0)]
    assert (report.num_identities_before, report.num_identities_after) == (2, 2)


def test_across_sources_the_later_copy_goes_and_the_items_become_one(drawn, tmp_path):
    again = saved_again(drawn / "0.jpg", tmp_path / "again.jpg")
    first = garments("A", [(drawn / "0.jpg", 0), (drawn / "1.jpg", 0), (drawn / "2.jpg", 1), (drawn / "3.jpg", 1)])
    second = garments("B", [(again, 0), (drawn / "4.jpg", 0), (drawn / "5.jpg", 3), (drawn / "6.jpg", 3)])
    (one, other), report = deduplicate([first, second], tmp_path / "cache")
    assert names(one) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert names(other) == ["4.jpg", "5.jpg", "6.jpg"]
    assert other.identities[0] == one.identities[0]
    assert len({*one.identities.tolist(), *other.identities.tolist()}) == 3
    assert counts(report) == [(4, 0, 0, 0, 0, 0), (3, 0, 0, 0, 1, 0)]
    assert [(pair.kept_in, pair.taken_from, pair.count) for pair in report.shared] == [("A", "B", 1)]
    assert (report.num_identities_before, report.num_identities_after, report.num_joined_within) == (4, 3, 0)
    crops = collect([one, other])
    assert crops.num_identities == 3
    by_name = dict(zip((crops.photos[row].name for row in crops.photo_rows), crops.labels.tolist(), strict=True))
    assert by_name["0.jpg"] == by_name["1.jpg"] == by_name["4.jpg"]


def test_copies_hang_together_through_others(drawn, tmp_path):
    """A chain of three sources, and two items of one source that another one has under one item."""
    copy = {n: saved_again(drawn / f"{n}.jpg", tmp_path / f"copy{n}.jpg") for n in (0, 1)}
    third = saved_again(copy[0], tmp_path / "third.jpg", 80, 1.1)
    parts = [
        garments("A", [(drawn / "0.jpg", 0), (drawn / "2.jpg", 0), (drawn / "1.jpg", 1), (drawn / "3.jpg", 1)]),
        garments("B", [(copy[0], 0), (copy[1], 0), (drawn / "4.jpg", 0)]),
        garments("C", [(third, 0), (drawn / "5.jpg", 0)]),
    ]
    kept, report = deduplicate(parts, tmp_path / "cache")
    assert [names(part) for part in kept] == [["0.jpg", "2.jpg", "1.jpg", "3.jpg"], ["4.jpg"], ["5.jpg"]]
    assert len({item for part in kept for item in part.identities.tolist()}) == 1
    assert report.num_joined_within == 1
    assert report.num_identities_after == 1
    assert [(pair.kept_in, pair.taken_from, pair.count) for pair in report.shared] == [("A", "B", 2), ("A", "C", 1)]


def test_guarded_copies_are_told_and_go_only_if_asked(drawn, tmp_path):
    again = saved_again(drawn / "0.jpg", tmp_path / "again.jpg")
    guard = garments("DeepFashion2/validation", [(drawn / "0.jpg", -1), (drawn / "9.jpg", 1)])
    part = garments("A", [(again, 0), (drawn / "1.jpg", 0), (drawn / "2.jpg", 0)])
    (kept,), report = deduplicate([part], tmp_path / "cache", guard=[guard])
    assert len(kept) == 3
    assert report.guard == ("DeepFashion2/validation",)
    assert report.sources[0].num_guarded == 1
    assert report.sources[0].examples == {"guarded": f"{again} (item 0) is {drawn / '0.jpg'} (item -1)"}
    (kept,), report = deduplicate([part], tmp_path / "cache", guard=[guard], leave_out_guarded=True)
    assert names(kept) == ["1.jpg", "2.jpg"]
    assert counts(report) == [(2, 0, 0, 0, 0, 1)]
    assert report.sources[0].num_guarded == 1


def test_broken_photos_go_and_crops_without_item_stay(drawn, tmp_path):
    whole = (drawn / "0.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no photo")
    rows = [(tmp_path / "cut.jpg", 0), (drawn / "1.jpg", NO_IDENTITY), (drawn / "1.jpg", 0), (tmp_path / "text.jpg", 1)]
    (kept,), report = deduplicate([garments("A", rows)], tmp_path / "cache")
    assert names(kept) == ["1.jpg", "1.jpg"]
    assert (kept.identities == NO_IDENTITY).tolist() == [True, False]
    assert counts(report) == [(2, 2, 0, 0, 0, 0)]
    assert "cut.jpg: is cut short" in report.sources[0].examples["unreadable"]


def test_boxes_are_what_is_compared(drawn, tmp_path):
    image = cv2.imread(str(drawn / "0.jpg"))
    height, width = image.shape[:2]
    canvas = np.random.default_rng(0).integers(0, 256, (height + 60, width + 80, 3), dtype=np.uint8)
    canvas[40 : 40 + height, 30 : 30 + width] = image
    cv2.imwrite(str(tmp_path / "street.png"), canvas)
    whole = garments("A", [(drawn / "0.jpg", 0)])
    rows = [(tmp_path / "street.png", 0), (tmp_path / "street.png", 1)]
    boxed = garments("B", rows, [[30, 40, 30 + width, 40 + height], [0, 0, width, height]])
    _, report = deduplicate([whole, boxed], tmp_path / "cache")
    assert counts(report) == [(1, 0, 0, 0, 0, 0), (1, 0, 0, 0, 1, 0)]


@pytest.mark.parametrize("seed", range(3))
def test_counts_do_not_depend_on_the_order_and_nothing_is_lost(drawn, tmp_path, seed):
    random = np.random.default_rng(seed)
    parts = []
    for name in "ABC":
        rows = []
        for turn in range(25):
            number = int(random.integers(PICTURES))
            path = drawn / f"{number}.jpg"
            if random.random() < 0.5:
                path = saved_again(path, tmp_path / name / f"{turn}.jpg", int(random.integers(80, 96)))
            rows.append((path, int(random.integers(6))))
        parts.append(garments(name, list(dict.fromkeys(rows))))
    kept, report = deduplicate(parts, tmp_path / "cache")
    for part, after, told in zip(parts, kept, report.sources, strict=True):
        gone = (told.num_unreadable, told.num_same_item, told.num_other_item, told.num_across, told.num_left_out)
        assert len(part) == told.num_garments == told.num_kept + sum(gone)
        assert len(after) == told.num_kept
    assert sum(one.num_kept for one in report.sources) == PICTURES  # every picture once
    mixed = [part.take(random.permutation(len(part))) for part in parts]
    _, again = deduplicate(mixed, tmp_path / "cache2")
    assert counts(again) == counts(report)
    assert again.shared == report.shared
    assert deduplicate(parts, tmp_path / "cache")[1] == report
    assert deduplicate(parts[:2], tmp_path / "cache")[1].kept_sha256 != report.kept_sha256
    _, turned = deduplicate(parts[::-1], tmp_path / "cache")
    total = np.sum(counts(report), axis=0)
    assert np.sum(counts(turned), axis=0).tolist() == total.tolist()


def test_a_second_time_nothing_is_looked_at_again(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.data.duplicates.looking.SHARD_CROPS", 4)
    part = garments("A", [(drawn / f"{number}.jpg", 0) for number in range(PICTURES)])
    first = look(part, tmp_path)
    shards = sorted(tmp_path.rglob("*.npz"))
    assert len(shards) == 3
    stamps = [path.stat().st_mtime_ns for path in shards]
    shards[1].write_bytes(shards[1].read_bytes()[:100])
    seen: list[tuple[int, int]] = []
    second = look(part, tmp_path, progress=lambda *at: seen.append(at))
    assert seen == [(12, 12)]
    assert [path.stat().st_mtime_ns == stamp for path, stamp in zip(shards, stamps, strict=True)] == [True, False, True]
    for name in ("hashes", "thumbnails", "digests", "aspects", "is_readable"):
        assert (getattr(first, name) == getattr(second, name)).all()
    look(part, tmp_path / "other", workers=2)
    assert [path.name for path in sorted((tmp_path / "other").rglob("*.npz"))] == [path.name for path in shards]


def test_big_photos_are_looked_at_reduced(drawn, tmp_path):
    """The same crop of a photo at four times the size, decoded at a quarter, is a copy."""
    big = saved_again(drawn / "0.jpg", tmp_path / "big.jpg", 90, 5.0)
    (kept,), report = deduplicate([garments("A", [(drawn / "0.jpg", 0), (big, 0)])], tmp_path / "cache")
    assert counts(report) == [(1, 0, 1, 0, 0, 0)]
    assert names(kept) == ["0.jpg"]


def test_parts_that_share_identities_are_refused(drawn, tmp_path):
    part = replace(garments("A", [(drawn / "0.jpg", 0)]), shares_identities=True)
    with pytest.raises(ValueError, match="shared already"):
        deduplicate([part], tmp_path)


def test_nothing_to_do(tmp_path):
    assert deduplicate([], tmp_path)[0] == []
    (kept,), report = deduplicate([garments("A", [])], tmp_path)
    assert len(kept) == 0
    assert counts(report) == [(0, 0, 0, 0, 0, 0)]


def test_what_is_planted_goes_and_nothing_else(tmp_path):
    parts = []
    for name in LAYOUTS:
        render_layout(tmp_path / name, LayoutSettings(layout=name, seed=4, num_garments=12), workers=1)
        parts.append(read_source(name, tmp_path / name))
    _, report = deduplicate(parts, tmp_path / "cache")
    went = {one.source: (one.num_same_item, one.num_other_item, one.num_across) for one in report.sources}
    assert went.pop("Street2Shop") in ((0, 0, 0), (1, 0, 0))  # a box listed twice, a pixel off: a copy, or nearly
    assert went == {
        "DARN": (1, 0, 0),  # a user's photo that is the shop's
        "MVC": (0, 1, 0),  # one photo under two styles
        "MPV": (0, 0, 0),
        "Zalando": (0, 0, 2),  # of MPV's first garment
    }
    assert report.num_identities_before - report.num_identities_after == 1


@pytest.mark.slow
def test_a_thousand_garments_are_a_thousand(tmp_path):
    """No false merge where it is likeliest: the same pose before the same wall, with look-alikes of every model."""
    rows = []
    for item in items_of("DARN", 4, 1000, range(1, 14)):
        content, _ = take_photo(shot("DARN", 4, item, 0, is_consumer=False, view="flat"))
        path = tmp_path / f"{item.number}.jpg"
        path.write_bytes(content)
        rows.append((path, item.number))
    _, report = deduplicate([garments("A", rows)], tmp_path / "cache")
    assert counts(report) == [(1000, 0, 0, 0, 0, 0)]


def test_the_command(tmp_path):
    render(tmp_path / "data", RenderSettings(seed=4, num_train=6, num_validation=4, num_test=2), workers=1)
    for name in ("MPV", "Zalando"):
        render_layout(tmp_path / name, LayoutSettings(layout=name, seed=4, num_garments=12), workers=1)
    sources = [f"--source={name}={tmp_path / name}" for name in ("MPV", "Zalando")]
    options = ("--data", tmp_path / "data", *sources, "--work", tmp_path / "work", "--workers", 1)
    told = ok("data", "duplicates", *options, "--out", tmp_path / "out" / "report.json")
    assert "2 crops of Zalando are copies of crops of MPV" in told
    assert "guarded: DeepFashion2/validation" in told
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report == json.loads(ok("data", "duplicates", *options, "--json"))
    assert report["shared"] == [{"kept_in": "MPV", "taken_from": "Zalando", "count": 2}]
    assert [one["source"] for one in report["sources"]] == ["DeepFashion2/train", "MPV", "Zalando"]
    validation = f"--source=Leak={tmp_path / 'leak.csv'}"
    photo = tmp_path / "data/validation/image/000001.jpg"
    item = json.loads((tmp_path / "data/validation/annos/000001.json").read_text())["item1"]
    box = " ".join(map(str, item["bounding_box"]))
    (tmp_path / "leak.csv").write_text(f"image,box,item,domain\n{photo},{box},1,shop\n")
    leaking = json.loads(ok("data", "duplicates", *options, validation, "--leave-out-validation", "--json"))
    assert (leaking["sources"][3]["num_guarded"], leaking["sources"][3]["num_left_out"]) == (1, 1)


@pytest.mark.parametrize("given", [["MVC"], ["=x"], ["A="], ["A=1", "A=2"]])
def test_sources_are_given_as_name_and_folder(tmp_path, given):
    options = [word for text in given for word in ("--source", text)]
    done = call("data", "duplicates", "--data", tmp_path, *options)
    assert done.exit_code == 2
    assert "expected NAME=PATH, each name once" in " ".join(done.output.replace("│", " ").split())
