import json
from pathlib import Path

import numpy as np
import pytest

from harness.artifacts import Recipe, Store
from harness.retrieval import entered
from harness.retrieval.entered import enter, find_rows, nearest_rows, read_card
from harness.training.cards import TrainedOn
from harness.types import Detections, InputError, Split

D = 6


@pytest.fixture
def boxes(validation_split: Split) -> Detections:
    return validation_split.items.as_detections()


def write_boxes(path: Path, boxes: Detections) -> Path:
    rows = zip(boxes.image_ids.tolist(), boxes.boxes_xyxy.tolist(), strict=True)
    listed = [{"image_id": i, "bbox": [x1, y1, x2 - x1, y2 - y1]} for i, (x1, y1, x2, y2) in rows]
    path.write_text(json.dumps(listed))
    return path


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 5, (count, D))


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def put(tmp_path: Path, validation_split: Split, boxes: Detections):
    """Enter vectors of boxes as m18."""

    def call(vectors: np.ndarray, some: Detections | None = None, split: Split = validation_split, **options):
        np.save(tmp_path / "given.npy", vectors)
        path = write_boxes(tmp_path / "given.json", boxes if some is None else some)
        return enter(tmp_path / "m18", "m18", tmp_path / "given.npy", path, split, **options)

    return call


def rows_of(tmp_path: Path, split: Split, boxes: Detections) -> np.ndarray:
    """What a box set gets, through the store."""
    found = find_rows(tmp_path / "m18", split, boxes, "GT")
    artifact, _ = Store(tmp_path / "store").get(Recipe("embed", 1, {}, {"found": found.identity}), found.write)
    assert artifact.facts["rows"] == len(boxes)
    return artifact.array("vectors.npy")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_vectors_come_back_of_unit_length_in_any_order(dtype, put, tmp_path, validation_split, boxes):
    vectors = noise(len(boxes)).astype(dtype)
    card = put(vectors)
    assert (card.dimensions, card.entries[0].num_boxes) == (D, len(boxes))
    order = np.random.default_rng(1).permutation(len(boxes))[:50]
    found = rows_of(tmp_path, validation_split, boxes.take(order))
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, unit(vectors.astype(np.float64))[order], atol=1e-3)


def test_rows_of_half_precision_stay_as_they_are(put, tmp_path, validation_split, boxes):
    vectors = unit(noise(len(boxes))).astype(np.float16)
    put(vectors)
    assert np.array_equal(rows_of(tmp_path, validation_split, boxes), vectors)


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_very_long_and_very_short_vectors(size, put, tmp_path, validation_split, boxes):
    vectors = noise(len(boxes))
    put(vectors * size)
    np.testing.assert_allclose(rows_of(tmp_path, validation_split, boxes), unit(vectors), atol=1e-3)


def test_many_rows_are_read_in_parts(put, tmp_path, validation_split, boxes, monkeypatch):
    monkeypatch.setattr(entered, "_ROWS", 7)
    vectors = noise(len(boxes))
    put(vectors)
    np.testing.assert_allclose(rows_of(tmp_path, validation_split, boxes), unit(vectors), atol=1e-3)
    vectors[30, 2] = np.nan
    with pytest.raises(InputError, match="row 30 is not finite"):
        put(vectors)


def test_boxes_may_be_rounded_and_more_than_are_wanted(put, tmp_path, validation_split, boxes):
    rounded = Detections(boxes.image_ids, np.round(boxes.boxes_xyxy + 0.45), boxes.scores, boxes.category_ids)
    far = Detections(boxes.image_ids, boxes.boxes_xyxy + 9, boxes.scores, boxes.category_ids)
    vectors = noise(2 * len(boxes))
    put(vectors, Detections.concatenate([far, rounded]))
    found = rows_of(tmp_path, validation_split, boxes)
    np.testing.assert_allclose(found, unit(vectors)[len(boxes) :], atol=1e-3)


def test_missing_boxes_are_counted_and_the_first_is_named(put, tmp_path, validation_split, boxes):
    put(noise(len(boxes) - 3), boxes.take(slice(3, None)))
    with pytest.raises(InputError) as refusal:
        find_rows(tmp_path / "m18", validation_split, boxes, "GT")
    message = str(refusal.value)
    assert f"3 of {len(boxes)} boxes of GT on validation are not among those entered for m18" in message
    assert f"the first is [4.0, 6.0, 44.0, 66.0] in photo {boxes.image_ids[0]}" in message


def test_several_files_make_up_a_box_set(put, tmp_path, validation_split, train_split, boxes):
    vectors = noise(len(boxes))
    consumer = validation_split.photos.consumer_mask(boxes.image_ids)
    put(vectors[consumer], boxes.take(consumer))
    put(noise(len(boxes), 3), split=train_split)  # the same ids and boxes of another split
    card = put(vectors[~consumer], boxes.take(~consumer))
    assert [one.split for one in card.entries] == ["validation", "train", "validation"]
    np.testing.assert_allclose(rows_of(tmp_path, validation_split, boxes), unit(vectors), atol=1e-3)
    both = find_rows(tmp_path / "m18", validation_split, boxes, "GT").identity
    # One file with all of them is preferred, the newest first; what it does not need does not count.
    put(noise(len(boxes) + 1, 1), boxes.take([0, *range(len(boxes))]))
    assert len(find_rows(tmp_path / "m18", validation_split, boxes, "GT").entries) == 1
    alone = find_rows(tmp_path / "m18", validation_split, boxes, "GT").identity
    assert alone != both
    put(noise(1, 2), boxes.take([5]))
    assert find_rows(tmp_path / "m18", validation_split, boxes, "GT").identity == alone
    assert find_rows(tmp_path / "m18", validation_split, boxes.take([5]), "GT").identity != alone


def test_vectors_of_the_same_boxes_are_replaced(put, tmp_path, validation_split, boxes):
    first = put(noise(len(boxes)))
    again = put(noise(len(boxes)))
    assert again == first
    other = put(noise(len(boxes), 1))
    assert len(other.entries) == 1
    assert other.entries[0].identity != first.entries[0].identity
    assert sorted(path.suffix for path in (tmp_path / "m18").iterdir()) == [".json", ".npy", ".parquet"]
    np.testing.assert_allclose(rows_of(tmp_path, validation_split, boxes), unit(noise(len(boxes), 1)), atol=1e-3)


def test_what_is_said_of_the_training_is_kept(put, boxes, train_split, validation_split):
    seen = TrainedOn.of(train_split, train_split.photos.image_ids)
    assert put(noise(len(boxes))).trained_on_said == "unknown"
    assert put(noise(len(boxes)), saw=[seen], trained_on="ours").trained_on == (seen,)
    card = put(noise(len(boxes)), saw=[seen, TrainedOn.of(validation_split, validation_split.photos.image_ids)])
    assert [one.split for one in card.trained_on] == ["train", "validation"]
    assert card.trained_on_said == "ours"


def test_no_boxes_are_found_everywhere(put, tmp_path, validation_split, train_split, boxes):
    put(noise(len(boxes)))
    for split in (validation_split, train_split):
        assert rows_of(tmp_path, split, Detections.empty()).shape == (0, D)


def spoil(row: int, value: float) -> np.ndarray:
    vectors = noise(80)
    vectors[row] = value
    return vectors


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (noise(80)[:79], "has 79 rows, .*given.json 80 boxes"),
        (noise(80)[:, 0], r"expected floats of shape \(boxes, dimensions\), got float64 of shape \(80,\)"),
        (noise(80).astype(np.int64), r"expected floats .* got int64"),
        (noise(80)[:, :0], "expected floats"),
        (spoil(7, 0), "row 7 is zero, so it has no direction"),
        (spoil(8, np.nan), "row 8 is not finite"),
        (spoil(9, np.inf), "row 9 is not finite"),
        (np.array([{}] * 80), "is no .npy of numbers"),
    ],
)
def test_vectors_that_cannot_be(vectors, message, put, tmp_path, boxes):
    assert len(boxes) == 80
    with pytest.raises(InputError, match=message):
        put(vectors)
    assert not (tmp_path / "m18").exists()


def test_files_that_cannot_be(tmp_path, put, validation_split, boxes):
    put(noise(len(boxes)))
    given, listed = tmp_path / "given.npy", tmp_path / "given.json"
    for content in (b"", b"no array", given.read_bytes()[:200], given.read_bytes()[:-1]):
        (tmp_path / "bad.npy").write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.npy: is no \.npy"):
            enter(tmp_path / "m18", "m18", tmp_path / "bad.npy", listed, validation_split)
    with pytest.raises(InputError, match=r"none\.npy: no such file"):
        enter(tmp_path / "m18", "m18", tmp_path / "none.npy", listed, validation_split)
    np.savez(tmp_path / "a.npz", noise(80))
    with pytest.raises(InputError, match="got an archive"):
        enter(tmp_path / "m18", "m18", tmp_path / "a.npz", listed, validation_split)
    assert read_card(tmp_path / "m18").entries[0].num_boxes == len(boxes)


def test_boxes_of_another_split(put, boxes):
    foreign = Detections(boxes.image_ids + 35, boxes.boxes_xyxy, boxes.scores, boxes.category_ids)
    with pytest.raises(InputError, match=r"70 of 80 boxes are of photos that validation does not have, .* photo 41"):
        put(noise(len(boxes)), foreign)


def test_corners_in_place_of_width_and_height_are_suspected(put, tmp_path, boxes):
    as_wh = Detections(
        boxes.image_ids,
        np.concatenate([boxes.boxes_xyxy[:, :2], boxes.boxes_xyxy[:, :2] + boxes.boxes_xyxy[:, 2:]], axis=1),
        boxes.scores,
        boxes.category_ids,
    )
    with pytest.raises(InputError, match=r"boxes stick out of their photos, the first of photo .* where COCO results"):
        put(noise(len(boxes)), as_wh)
    assert not (tmp_path / "m18").exists()


def test_another_model_needs_another_name(put, boxes):
    put(noise(len(boxes)))
    with pytest.raises(InputError, match="has 5 columns, what was entered as m18 before has 6"):
        put(noise(len(boxes))[:, :5])


def test_a_damaged_copy_is_named(put, tmp_path, validation_split, boxes):
    put(noise(len(boxes)))
    for ending in (".npy", ".parquet"):
        path = next((tmp_path / "m18").glob(f"*{ending}"))
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + b"?")
        with pytest.raises(InputError, match=f"{path}: is missing or damaged; enter the embeddings again"):
            rows_of(tmp_path, validation_split, boxes)
        path.write_bytes(whole)
    (tmp_path / "m18" / "card.json").write_text("{")
    with pytest.raises(InputError, match=r"card\.json: is damaged or not that of entered embeddings"):
        put(noise(len(boxes)))


@pytest.mark.parametrize("seed", range(20))
def test_nearest_rows_against_a_loop(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 12, 2)
    ids_N, ids_M = (rng.integers(1, 4, count) for count in counts)
    boxes_N, boxes_M = (rng.integers(0, 4, (count, 4)) * 0.4 for count in counts)
    expected = []
    for image_id, box in zip(ids_N, boxes_N, strict=True):
        best, least = -1, 0.5
        for row in range(len(ids_M) - 1, -1, -1):
            away = max(abs(a - b) for a, b in zip(box, boxes_M[row], strict=True))
            if ids_M[row] == image_id and away <= least:
                best, least = row, away
        expected.append(best)
    assert nearest_rows(ids_N, boxes_N, ids_M, boxes_M).tolist() == expected
