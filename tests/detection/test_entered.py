"""Detections that were made elsewhere: what is taken, what is refused, and what comes back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.artifacts import write_detections
from harness.data.deepfashion2 import read_split
from harness.detection.entered import _firsts, enter, find_boxes, read_card
from harness.training.cards import TrainedOn
from harness.types import Detections, InputError, Split
from tests.commands import ok


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "data"
    ok("data", "render", folder, "--train", 12, "--validation", 16, "--test", 4, "--workers", 1)
    return folder


@pytest.fixture(scope="module")
def split(data: Path) -> Split:
    return read_split(data, "validation")


@pytest.fixture
def boxes(split: Split) -> Detections:
    truth = split.items.as_detections()
    scores = np.random.default_rng(0).uniform(0.1, 1, len(truth))
    return Detections(truth.image_ids, truth.boxes_xyxy, scores, truth.category_ids)


def listed(boxes: Detections) -> list[dict[str, Any]]:
    columns = (boxes.image_ids, boxes.boxes_xyxy, boxes.scores, boxes.category_ids)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        {"image_id": photo, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score, "category_id": category}
        for photo, (x1, y1, x2, y2), score, category in rows
    ]


@pytest.fixture
def put(tmp_path: Path, split: Split):
    """Enter rows as d6."""

    def call(rows: Any, split: Split = split, **options: Any) -> Any:
        path = tmp_path / "given.json"
        path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
        return enter(tmp_path / "d6", "d6", path, split, **options)

    return call


def same(one: Detections, other: Detections) -> None:
    assert one.image_ids.tolist() == other.image_ids.tolist()
    assert one.category_ids.tolist() == other.category_ids.tolist()
    assert one.scores.tolist() == other.scores.tolist()
    np.testing.assert_allclose(one.boxes_xyxy, other.boxes_xyxy, rtol=0, atol=1e-9)


def test_what_was_entered_comes_back(put, tmp_path, split, boxes) -> None:
    card = put(listed(boxes))
    found = find_boxes(tmp_path / "d6", split)
    same(found.read(split.photos.image_ids), boxes)
    entry = card.entries[0]
    assert (entry.split, entry.num_boxes, entry.num_photos, entry.num_copies) == ("validation", len(boxes), 16, 0)
    some = split.photos.image_ids[3:7]
    same(found.read(some), boxes.take(np.isin(boxes.image_ids, some)))
    assert len(found.read(split.photos.image_ids[:0])) == 0


def test_a_parquet_of_the_store_says_the_same(put, tmp_path, split, boxes) -> None:
    path = tmp_path / "boxes.parquet"
    write_detections(path, boxes)
    card = enter(tmp_path / "d7", "d7", path, split)
    same(find_boxes(tmp_path / "d7", split).read(split.photos.image_ids), boxes)
    again = enter(tmp_path / "d8", "d8", path.rename(tmp_path / "other.parquet"), split)
    assert again.entries[0].identity == card.entries[0].identity, "the content decides, not the name of the file"


def test_photos_without_boxes_are_counted(put, tmp_path, split, boxes) -> None:
    photos = split.photos.image_ids
    rest = boxes.take(boxes.image_ids != photos[0])
    assert put(listed(rest)).entries[0].num_empty == len(photos) - len(np.unique(rest.image_ids)) >= 1
    with pytest.raises(InputError, match=r"but none in the 1 photos that are asked for \(the first is"):
        find_boxes(tmp_path / "d6", split).read(photos[:1])


def test_exact_copies_are_left_out_and_counted(put, tmp_path, split, boxes) -> None:
    rows = listed(boxes)
    less = [{**rows[0], "score": rows[0]["score"] / 2}, {**rows[1], "category_id": rows[1]["category_id"] % 13 + 1}]
    entry = put([*rows, *less, rows[0], rows[2], rows[0]]).entries[0]
    assert (entry.num_copies, entry.num_boxes) == (3, len(rows) + 2)


@given(st.lists(st.tuples(st.integers(1, 2), st.integers(0, 2), st.sampled_from([0.25, 0.5]), st.integers(1, 2))))
def test_the_first_of_equal_rows_against_a_loop(rows: list[tuple[int, int, float, int]]) -> None:
    boxes = Detections(
        np.array([row[0] for row in rows], np.int64),
        np.array([[row[1], 0, row[1] + 1, 2] for row in rows], float).reshape(-1, 4),
        np.array([row[2] for row in rows], float),
        np.array([row[3] for row in rows], np.int64),
    )
    assert _firsts(boxes).tolist() == [place for place, row in enumerate(rows) if row not in rows[:place]]


def test_the_same_split_again_replaces_and_another_is_added(put, tmp_path, data, split, boxes) -> None:
    first = put(listed(boxes))
    assert put(listed(boxes)) == first
    train = read_split(data, "train")
    both = put(listed(train.items.as_detections()), train)
    assert [one.split for one in both.entries] == ["validation", "train"]
    fewer = boxes.take(slice(0, 5))
    card = put(listed(fewer))
    assert [(one.split, one.num_boxes) for one in card.entries] == [("train", len(train.items)), ("validation", 5)]
    same(find_boxes(tmp_path / "d6", split).read(split.photos.image_ids), fewer)
    assert len(list((tmp_path / "d6").glob("*.parquet"))) == 2, "what nothing speaks of is removed"


def test_what_is_said_of_the_training_is_kept(put, split, data, boxes) -> None:
    train = read_split(data, "train")
    seen = TrainedOn.of(train, train.photos.image_ids)
    assert put(listed(boxes)).trained_on_said == "unknown"
    assert put(listed(boxes), saw=[seen], trained_on="ours").trained_on == (seen,)
    card = put(listed(boxes))
    assert (card.trained_on, card.trained_on_said) == ((seen,), "ours")


def spoilt(**change: Any) -> Any:
    return lambda rows: [rows[0], {**rows[1], **change}, *rows[2:]]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: [], r"given\.json: has no boxes at all"),
        (lambda rows: {"images": []}, r"given\.json: expected a list of detections"),
        (lambda rows: "[{", r"given\.json: is not JSON"),
        (spoilt(category_id=0), r"given\.json: \[1\]: category_id: expected an integer from 1 to 13, got 0"),
        (spoilt(category_id=14), r"\[1\]: category_id: expected an integer from 1 to 13, got 14"),
        (spoilt(score=1.5), r"\[1\]: score: expected a number from 0 to 1, got 1.5"),
        (spoilt(score=-0.1), r"\[1\]: score: expected a number from 0 to 1, got -0.1"),
        (spoilt(bbox=[1, 2, -3, 4]), r"\[1\]: bbox: expected width and height >= 0"),
        (spoilt(image_id=999), r"1 of \d+ boxes are of photos that validation does not have, the first of photo 999"),
        (
            lambda rows: [{**row, "bbox": [row["bbox"][0] / 999, 0, 0.1, 0.2]} for row in rows],
            "the boxes look normalised",
        ),
        (
            lambda rows: [
                {**row, "bbox": [x, y, x + w, y + h]} for row in rows for x, y, w, h in [[10 + s for s in row["bbox"]]]
            ],
            r"stick out of their photos, .* or x1 y1 x2 y2 where COCO results have x y width height",
        ),
    ],
)
def test_files_that_cannot_be(spoil, message, put, tmp_path, boxes) -> None:
    with pytest.raises(InputError, match=message):
        put(spoil(listed(boxes)))
    assert not (tmp_path / "d6").exists()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("x1", np.nan, "row 2: expected finite pixels"),
        ("x1", 9e4, "row 2: expected a box whose sides are not negative"),
        ("score", np.nan, "row 2: score: expected a number from 0 to 1, got nan"),
        ("category_id", 14, "row 2: category_id: expected 1 to 13, got 14"),
        ("image_id", -1, "row 2: expected an image id of at least 0"),
    ],
)
def test_parquet_that_cannot_be(column, value, message, tmp_path, split, boxes) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "boxes.parquet"
    write_detections(path, boxes)
    table = pq.read_table(path)
    values = table[column].to_numpy().copy()
    values[2] = value
    pq.write_table(table.set_column(table.column_names.index(column), column, pa.array(values)), path)
    with pytest.raises(InputError, match=f"boxes.parquet: {message}"):
        enter(tmp_path / "d6", "d6", path, split)
    pq.write_table(table.drop_columns(["score"]), path)
    with pytest.raises(InputError, match=r"boxes\.parquet: cannot be read as boxes .*expected a COCO results list"):
        enter(tmp_path / "d6", "d6", path, split)


def test_a_damaged_copy_or_card_is_named(put, tmp_path, split, boxes) -> None:
    put(listed(boxes))
    path = next((tmp_path / "d6").glob("*.parquet"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?")
    with pytest.raises(InputError, match=f"{path}: is missing or damaged; enter the detections again"):
        find_boxes(tmp_path / "d6", split).read(split.photos.image_ids)
    put(listed(boxes))
    same(find_boxes(tmp_path / "d6", split).read(split.photos.image_ids), boxes)
    (tmp_path / "d6" / "card.json").write_text("{")
    with pytest.raises(InputError, match=r"card\.json: is damaged or not that of entered detections"):
        read_card(tmp_path / "d6")


def test_a_split_that_nothing_was_entered_of(put, tmp_path, data, boxes) -> None:
    put(listed(boxes))
    message = rf"no boxes of d6 were entered for train of {data} \(entered: {len(boxes)} of validation\); enter them"
    with pytest.raises(InputError, match=message):
        find_boxes(tmp_path / "d6", read_split(data, "train"))


def test_a_folder_of_a_training_is_left_alone(put, tmp_path, boxes) -> None:
    (tmp_path / "d6").mkdir()
    (tmp_path / "d6" / "plan.json").write_text("{}")
    with pytest.raises(InputError, match="a training was begun there"):
        put(listed(boxes))
    (tmp_path / "d6" / "plan.json").unlink()
    (tmp_path / "d6" / "card.json").write_text("{}")
    (tmp_path / "d6" / "weights.pt").write_bytes(b"")
    with pytest.raises(InputError, match="is a model with weights of its own; enter detections under another name"):
        put(listed(boxes))
