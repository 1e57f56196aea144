import gc

import numpy as np
import pytest

from harness.scoring.boxes import ap50, box_ap, box_ap_by_category, per_category
from harness.scoring.hedging import class_hedging
from harness.types import BoxAP, Detections, Items


def items(image_ids, boxes, category_ids) -> Items:
    count = len(image_ids)
    ones = np.ones(count, int)
    return Items(
        np.array(image_ids, int),
        ones,
        np.ones(count, bool),
        np.array(boxes, float).reshape(-1, 4),
        np.array(category_ids, int),
        *(ones for _ in range(6)),
    )


def detections(image_ids, boxes, scores, category_ids) -> Detections:
    return Detections(
        np.array(image_ids, int), np.array(boxes, float).reshape(-1, 4), np.array(scores), np.array(category_ids, int)
    )


def world(seed: int, num_photos: int = 30, num_categories: int = 13) -> tuple[Items, Detections]:
    """Items of all sizes; jittered detections with equal scores, wrong classes, strays, and empty photos."""
    rng = np.random.default_rng(seed)
    count = rng.integers(1, 3 * num_photos)
    photos = np.sort(rng.integers(1, num_photos, count))
    corner = rng.uniform(0, 300, (count, 2))
    size = np.exp(rng.uniform(2, 6, (count, 2)))
    boxes = np.concatenate([corner, corner + size], axis=1)
    categories = rng.integers(1, num_categories + 1, count)
    copies = rng.integers(0, 4, count)
    n = int(copies.sum())
    jittered = np.repeat(boxes, copies, axis=0) + rng.normal(0, 0.08, (n, 4)) * np.tile(
        np.repeat(size, copies, axis=0), 2
    )
    jittered = np.concatenate([np.minimum(jittered[:, :2], jittered[:, 2:]), jittered[:, 2:]], axis=1)
    found = np.where(rng.random(n) < 0.15, rng.integers(1, 14, n), np.repeat(categories, copies))
    strays = rng.integers(num_photos, num_photos + 5, n)
    where = np.where(rng.random(n) < 0.05, strays, np.repeat(photos, copies))
    return items(photos, boxes, categories), detections(where, jittered, rng.choice(np.linspace(0, 1, 40), n), found)


def values(average: BoxAP) -> list[float]:
    return [-1 if value is None else value for value in vars(average).values()]


@pytest.mark.parametrize("seed", range(12))
def test_both_engines_agree(seed):
    truth, found = world(seed, num_categories=4 if seed % 2 else 13)
    np.testing.assert_allclose(
        values(box_ap(truth, found)), values(box_ap(truth, found, engine="pycocotools")), rtol=0, atol=1e-9
    )
    ours, theirs = per_category(truth, found), per_category(truth, found, engine="pycocotools")
    assert list(ours) == list(range(1, 14))
    for category in ours:
        np.testing.assert_allclose(values(ours[category]), values(theirs[category]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(60))
def test_fast_ap50_is_the_engines_ap50(seed):
    """Also with boxes on a coarse grid, where overlaps and scores are often equal, and with crowded photos."""
    truth, found = world(seed, num_photos=6, num_categories=2)
    if seed % 3 == 0:
        rng = np.random.default_rng(seed)

        def grid(n):
            corner = rng.integers(0, 3, (n, 2))
            return np.concatenate([corner, corner + rng.integers(1, 4, (n, 2))], axis=1)

        truth = items(np.sort(rng.integers(1, 4, 12)), grid(12), rng.integers(1, 3, 12))
        n = 400 if seed % 2 else 40
        found = detections(rng.integers(1, 5, n), grid(n), rng.integers(0, 5, n) / 4, rng.integers(1, 3, n))
    expected = box_ap(truth, found, engine="pycocotools").ap50
    assert ap50(truth, found) == pytest.approx(expected, abs=1e-12)


def assert_engines_agree(truth: Items, found: Detections, image_ids=None) -> BoxAP:
    ours, by_category = box_ap_by_category(truth, found, image_ids)
    theirs = per_category(truth, found, image_ids, engine="pycocotools")
    np.testing.assert_allclose(
        values(ours), values(box_ap(truth, found, image_ids, engine="pycocotools")), rtol=0, atol=1e-9
    )
    for category in theirs:
        np.testing.assert_allclose(values(by_category[category]), values(theirs[category]), rtol=0, atol=1e-9)
    return ours


def grid_boxes(rng, n: int, sides) -> np.ndarray:
    corner = rng.integers(0, 5, (n, 2)) * 8
    return np.concatenate([corner, corner + rng.choice(sides, (n, 2))], axis=1)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    "sides",
    [[8, 16, 24], [31, 32, 33], [95, 96, 97], [0, 0, 16, 32]],
    ids=["equal overlaps", "around 32 x 32", "around 96 x 96", "without area"],
)
def test_engines_agree_where_scores_overlaps_and_areas_are_equal(seed, sides):
    """Few photos, a coarse grid, five scores: ties of every kind, and boxes right at the limits of the sizes."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 300))
    truth = items(np.sort(rng.integers(1, 6, 20)), grid_boxes(rng, 20, sides), rng.integers(1, 4, 20))
    found = detections(
        rng.integers(1, 8, n), grid_boxes(rng, n, sides), rng.integers(0, 5, n) / 4, rng.integers(1, 6, n)
    )
    assert_engines_agree(truth, found)
    assert_engines_agree(truth, found, np.array([2, 3, 7, 99]))


@pytest.mark.parametrize("scores", [np.full(350, 0.5), np.linspace(0, 1, 350), np.arange(350) % 3 / 2])
def test_engines_agree_on_more_than_a_hundred_boxes_of_a_photo_and_category(scores):
    rng = np.random.default_rng(0)
    truth = items([1] * 30 + [2] * 30, grid_boxes(rng, 60, [16, 24, 40]), [1] * 30 + [2] * 30)
    found = detections(np.arange(350) % 2 + 1, grid_boxes(rng, 350, [16, 24, 40]), scores, np.arange(350) % 2 + 1)
    assert assert_engines_agree(truth, found).ap > 0


def test_engines_agree_where_there_is_little_to_compare():
    truth = items([1, 4], [[0, 0, 50, 50]] * 2, [1, 7])
    elsewhere = detections([2, 9], [[0, 0, 50, 50]] * 2, [0.5, 0.5], [1, 7])
    other_category = detections([1, 4], [[0, 0, 50, 50]] * 2, [0.5, 0.5], [2, 13])
    without_area = detections([1, 4], [[5, 5, 5, 5], [0, 0, 50, 0]], [0.5, 0.5], [1, 7])
    for found in (Detections.empty(), elsewhere, other_category, without_area):
        for image_ids in (None, np.array([1, 2, 3, 4]), np.array([3])):
            assert assert_engines_agree(truth, found, image_ids).ap in (0, None)


def test_the_engines_leave_garbage_collection_as_it_was():
    truth, found = world(5)
    box_ap(truth, found)
    assert gc.isenabled()
    gc.disable()
    try:
        box_ap(truth, found)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_agrees_with_pycocotools_own_summary(capfd):
    """The averages are taken from the precision table here; pycocotools' own summary must be the same."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = world(99, num_photos=60)
    photos = np.union1d(truth.image_ids, found.image_ids).tolist()
    rows = zip(truth.image_ids.tolist(), truth.boxes_xyxy.tolist(), truth.category_ids.tolist(), strict=True)
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": photo} for photo in photos],
        "categories": [{"id": number} for number in range(1, 14)],
        "annotations": [
            {
                "id": n,
                "image_id": photo,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "category_id": category,
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
            }
            for n, (photo, (x1, y1, x2, y2), category) in enumerate(rows, 1)
        ],
    }
    coco.createIndex()
    width_height = found.boxes_xyxy[:, 2:] - found.boxes_xyxy[:, :2]
    table = np.column_stack([found.image_ids, found.boxes_xyxy[:, :2], width_height, found.scores, found.category_ids])
    evaluation = COCOeval(coco, coco.loadRes(table), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    capfd.readouterr()
    np.testing.assert_allclose(values(box_ap(truth, found)), evaluation.stats[:6], rtol=0, atol=1e-9)


def test_hand_worked_average():
    """Two items; found with 0.9, a false box with 0.8, found with 0.7: precision 1, 2/3, 2/3 at recall 1/2 and 1."""
    truth = items([1, 2], [[0, 0, 100, 100]] * 2, [3, 3])
    found = detections([1, 1, 2], [[0, 0, 100, 100], [500, 0, 600, 100], [0, 0, 100, 100]], [0.9, 0.8, 0.7], [3, 3, 3])
    expected = (51 * 1 + 50 * 2 / 3) / 101
    average = box_ap(truth, found)
    assert average.ap == pytest.approx(expected)
    assert average.ap_large == pytest.approx(expected)
    assert ap50(truth, found) == pytest.approx(expected)
    assert average.ap_small is None
    assert average.ap_medium is None
    assert per_category(truth, found)[3].ap50 == pytest.approx(expected)
    assert per_category(truth, found)[4].ap is None


def test_the_area_of_an_item_is_that_of_its_box():
    """32 × 32 is small and medium at once, as COCO's closed ranges have it; 33 × 32 is medium alone."""
    for width, small, medium in ((31, 1.0, None), (32, 1.0, 1.0), (33, None, 1.0)):
        truth = items([1], [[0, 0, width, 32]], [1])
        average = box_ap(truth, truth.as_detections())
        assert average.ap_small == small
        assert average.ap_medium == pytest.approx(medium) if medium else average.ap_medium is None


def test_only_the_hundred_best_boxes_of_a_photo_and_category_count():
    truth = items([1], [[0, 0, 50, 50]], [1])
    boxes = [[100 + n, 0, 150 + n, 50] for n in range(100)] + [[0, 0, 50, 50]]
    late = detections([1] * 101, boxes, np.linspace(1, 0.1, 101), [1] * 101)
    assert box_ap(truth, late).ap50 == ap50(truth, late) == 0
    assert box_ap(truth, late.take(slice(1, None))).ap50 == pytest.approx(0.01)


def test_nothing_found_and_nothing_there():
    truth = items([1], [[0, 0, 50, 50]], [1])
    nothing = items([], [], [])
    assert box_ap(truth, Detections.empty()).ap == 0
    assert ap50(truth, Detections.empty()) == 0
    assert box_ap(nothing, truth.as_detections()) == BoxAP(None, None, None, None, None, None)
    assert box_ap(nothing, Detections.empty()).ap is None
    with pytest.raises(ValueError, match="AP50 does not exist"):
        ap50(nothing, truth.as_detections())


def test_false_boxes_on_photos_without_items_count_unless_left_out():
    truth = items([1], [[0, 0, 50, 50]], [1])
    found = detections([2, 1], [[0, 0, 50, 50]] * 2, [0.9, 0.5], [1, 1])
    assert box_ap(truth, found).ap50 == pytest.approx(0.5)
    assert box_ap(truth, found, image_ids=np.array([1])).ap50 == 1
    assert ap50(truth, found, image_ids=np.array([1])) == 1
    assert box_ap(truth, found, image_ids=np.array([2])).ap50 is None


def test_nothing_is_printed(capfd):
    truth, found = world(5)
    box_ap(truth, found)
    box_ap(truth, found, engine="pycocotools")
    ap50(truth, found)
    assert capfd.readouterr() == ("", "")


def test_one_box_under_all_classes_is_hedging():
    boxes = np.tile(np.array([0.0, 0, 100, 100]), (13, 1)) + np.arange(13)[:, None] * 0.1
    found = class_hedging(np.ones(13, int), boxes, np.arange(1, 14))
    assert (found.max_categories, found.share, found.is_hedged) == (13, 1.0, True)


def test_one_box_under_two_classes_is_not_hedging():
    boxes = np.tile(np.array([0.0, 0, 100, 100]), (40, 1))
    image_ids = np.repeat(np.arange(20), 2)
    found = class_hedging(image_ids, boxes, np.tile([1, 5], 20))
    assert (found.max_categories, found.share, found.is_hedged) == (2, 0.0, False)


def test_equal_boxes_of_other_photos_are_not_hedging_and_many_photos_are_seen():
    boxes = np.tile(np.array([0.0, 0, 100, 100]), (13 * 400, 1))
    spread = class_hedging(np.arange(13 * 400), boxes, np.tile(np.arange(1, 14), 400))
    assert (spread.max_categories, spread.is_hedged) == (1, False)
    stacked = class_hedging(np.repeat(np.arange(400), 13), boxes, np.tile(np.arange(1, 14), 400))
    assert stacked.share == 1
    few = class_hedging(
        np.concatenate([np.zeros(13, int), np.arange(1, 388)]), boxes[:400], np.resize(np.arange(1, 14), 400)
    )
    assert (few.max_categories, few.is_hedged) == (13, False)
    assert class_hedging(np.zeros(0, int), np.zeros((0, 4)), np.zeros(0, int)).is_hedged is False
