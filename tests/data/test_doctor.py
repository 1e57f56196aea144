import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.data.deepfashion2 import read_split
from harness.data.doctor import SAMPLE_PHOTOS, DoctorReport, check
from harness.data.photos import decode_rgb
from harness.types import CATEGORIES, InputError

Edit = Callable[[int, Callable[[dict[str, Any]], None]], Path]


def _messages(report: DoctorReport, *, fatal: bool = True) -> list[str]:
    return [str(problem) for problem in report.problems if problem.fatal == fatal]


def test_counts(dataset: Path) -> None:
    report = check(dataset)
    assert report.ok
    assert not report.rendered
    (split,) = report.splits
    assert (split.name, split.num_photos, split.num_consumer, split.num_shop) == ("validation", 4, 2, 2)
    assert split.num_items == 6
    assert split.items_per_category == {
        name: {"short sleeve top": 3, "trousers": 2, "sling dress": 1}.get(name, 0) for name in CATEGORIES
    }
    assert split.num_pairs == 2
    assert (split.num_matched_consumer_items, split.num_unmatched_consumer_items, split.num_style_0_items) == (2, 0, 1)
    assert split.num_decoded == 0


def test_sizes_are_compared_with_the_release_unless_rendered(dataset: Path) -> None:
    warnings = _messages(check(dataset), fatal=False)
    assert any("expected the 32,153 photos of the release, found 4" in one for one in warnings)
    assert any("expected the 10,844 consumer photos of the release, found 2" in one for one in warnings)
    assert any("train: no such folder" in one for one in warnings)
    (dataset / "RENDERED.json").write_text("{}")
    report = check(dataset)
    assert report.rendered
    assert not any("release" in one for one in _messages(report, fatal=False))


def test_every_problem_is_listed(dataset: Path, edit: Edit) -> None:
    def spoil(document: dict[str, Any]) -> None:
        del document["source"]
        document["item1"]["category_id"] = 20
        document["item1"]["style"] = "one"
        document["item2"]["bounding_box"] = [9, 9, 1, 1]

    edit(1, spoil)
    edit(3, lambda document: document.pop("pair_id"))
    (dataset / "validation" / "annos" / "000010.json").write_text("{")
    (dataset / "validation" / "image" / "000002.jpg").unlink()
    (dataset / "validation" / "image" / "odd.jpg").write_bytes(b"")
    report = check(dataset)
    assert not report.ok
    expected = [
        "odd.jpg: expected names such as",
        "000002.json: has no photo",
        "000001.json: source",
        "000001.json: item1: category_id",
        "000001.json: item1: style",
        "000001.json: item2: bounding_box",
        "000003.json: pair_id",
        "000010.json: is not JSON",
    ]
    messages = _messages(report)
    assert len(messages) == len(expected)
    for part, message in zip(expected, messages, strict=True):
        assert part in message
    with pytest.raises(InputError, match=r"odd\.jpg.*1 more"):
        read_split(dataset, "validation")


def test_rarer_fields_are_warned_about(dataset: Path, edit: Edit) -> None:
    def spoil(document: dict[str, Any]) -> None:
        document["item1"]["category_name"] = "short_sleeved_shirt"
        document["item1"]["landmarks"] = [1, 2]
        document["item1"]["segmentation"] = [[1, 2, 3]]
        document["item2"]["segmentation"] = []

    edit(1, spoil)
    report = check(dataset)
    assert report.ok
    found = "\n".join(_messages(report, fatal=False))
    for part in ("item1: category_name: expected 'short sleeve top'", "item1: landmarks", "item1: segm", "item2: segm"):
        assert part in found


def test_photos_are_decoded_on_request(dataset: Path) -> None:
    photo = dataset / "validation" / "image" / "000003.jpg"
    photo.write_bytes(photo.read_bytes()[:-200])
    (dataset / "validation" / "image" / "000010.jpg").write_bytes(b"")
    assert [one for one in _messages(check(dataset)) if "000003" in one] == []
    report = check(dataset, decode="all")
    assert report.splits[0].num_decoded == 3
    messages = _messages(report)
    assert len(messages) == 2
    assert "000010.jpg: is empty" in messages[0]
    assert "000003.jpg: is cut short" in messages[1]
    assert messages[1].count("000003.jpg") == 1


def test_a_sample_is_spread_over_the_split(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SAMPLE_PHOTOS == 200
    monkeypatch.setattr("harness.data.doctor.SAMPLE_PHOTOS", 2)
    seen: list[str] = []

    def watch(path: Path) -> Any:
        seen.append(path.name)
        return decode_rgb(path)

    monkeypatch.setattr("harness.data.doctor.decode_rgb", watch)
    report = check(dataset, decode="sample")
    assert report.splits[0].num_decoded == 2
    assert sorted(seen) == ["000001.jpg", "000010.jpg"]


def test_boxes_outside_their_photo_are_warned_about(dataset: Path, edit: Edit) -> None:
    edit(3, lambda document: document["item2"].update(bounding_box=[43, 1, 90, 9]))
    found = [one for one in _messages(check(dataset, decode="all"), fatal=False) if "lies outside" in one]
    assert len(found) == 1
    assert "000003.jpg: item2's box [43.0, 1.0, 90.0, 9.0] lies outside the photo (43 × 48)" in found[0]


def test_queries_without_an_answer_are_counted(dataset: Path, edit: Edit) -> None:
    edit(3, lambda document: document["item2"].update(style=5))
    report = check(dataset)
    assert report.splits[0].num_matched_consumer_items == 1
    assert report.splits[0].num_unmatched_consumer_items == 1
    assert any("1 consumer items of style > 0 have no shop item" in one for one in _messages(report, fatal=False))


def test_a_test_split_with_its_truth_apart(dataset: Path) -> None:
    (dataset / "validation").rename(dataset / "test")
    (dataset / "test_truth").mkdir()
    (dataset / "test" / "annos").rename(dataset / "test_truth" / "annos")
    report = check(dataset)
    assert any("cannot tell consumer from shop" in one for one in _messages(report))
    assert (report.splits[0].num_consumer, report.splits[0].num_items) == (None, 6)
    for kind, ids in (("consumer", [1, 2]), ("shop", [3, 10])):
        images = {"images": [{"id": one} for one in ids]}
        (dataset / f"retrieval_test_{kind}_information.json").write_text(json.dumps(images))
    report = check(dataset)
    assert report.ok
    assert (report.splits[0].num_consumer, report.splits[0].num_shop) == (2, 2)


def test_a_split_without_photos_is_a_problem(dataset: Path) -> None:
    (dataset / "train").mkdir()
    report = check(dataset)
    assert [split.name for split in report.splits] == ["validation"]
    assert any("train/image: no such folder" in one for one in _messages(report))


def test_a_folder_without_any_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder; expected"):
        check(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds none of train, validation, test; expected"):
        check(tmp_path)


def test_train_items_without_an_answer_are_no_problem(dataset: Path, edit: Edit) -> None:
    edit(3, lambda document: document["item2"].update(style=5))
    (dataset / "validation").rename(dataset / "train")
    report = check(dataset)
    assert report.splits[0].num_unmatched_consumer_items == 1
    assert not any("have no shop item" in str(problem) for problem in report.problems)
