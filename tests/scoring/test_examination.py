import json
import re

import numpy as np
import pytest

from harness.scoring import official, plausibility, slices, strict
from harness.scoring.examination import examine
from harness.scoring.ledger import GalleryBoxes, account
from harness.scoring.questions import Questions
from harness.scoring.significance import wilson_interval
from harness.scoring.truth import Queries, truth_from_items, with_attributes
from harness.types import RANKS, InputError, Items
from tests.scoring.worlds import FAR, crowded_world, hear, item, query, result

A = [0, 0, 100, 100]
SHOP = [10, 10, 110, 110]
SHOWN = {"scale": 1, "occlusion": 2, "zoom_in": 3, "viewpoint": 0}


def cut(results, queries, gallery) -> dict[tuple[str, str], slices.Slice]:
    hearing = hear(results, queries, gallery)
    found = slices.cut(Questions.of(hearing), official.decide(hearing).score.hit_ranks)
    return {(one.group, one.name): one for one in found}


def test_slices_by_hand():
    """Queries with 1, 2, 5 and 6 counterparts; those of category 3 are right, at rank 1 and 6."""
    gallery = [
        item(10 * pair + n, SHOP, 1, pair) for pair, count in ((1, 1), (2, 2), (3, 5), (4, 6)) for n in range(count)
    ]
    queries = [query(pair, A, cls=cls, pair_id=pair) for pair, cls in ((1, 3), (2, 3), (3, 13), (4, 13))]
    queries.append(query(5, A, style=0))
    results = [result(1, A, 3, right={1: (10, SHOP)}), result(2, A, 3, right={6: (21, SHOP)})]
    found = cut(results, queries, gallery)
    assert {key: one.num_queries for key, one in found.items()} == {
        ("category", "short sleeve outwear"): 2,
        ("category", "sling dress"): 2,
        ("counterparts", "1"): 1,
        ("counterparts", "2–5"): 2,
        ("counterparts", "more than 5"): 1,
    }
    assert found["category", "short sleeve outwear"].acc == {1: 0.5, 5: 0.5, 10: 1, 15: 1, 20: 1}
    assert found["category", "sling dress"].acc == dict.fromkeys(RANKS, 0)
    assert found["counterparts", "2–5"].acc == {1: 0, 5: 0, 10: 0.5, 15: 0.5, 20: 0.5}
    assert found["counterparts", "2–5"].intervals[10] == wilson_interval(1, 2)


def test_slices_by_attribute():
    values = [(1, 1, 1, 1), (1, 2, 3, 3), (3, 3, 2, 2), (2, 1, 1, 0)]
    queries = [
        query(n, A, style=style) | dict(zip(SHOWN, shown, strict=True))
        for n, (shown, style) in enumerate(zip(values, (1, 1, 1, 0), strict=True), 1)
    ]
    found = cut([result(2, A, right={5: (50, SHOP)})], queries, [item(50, SHOP)])
    counts = {key: one.num_queries for key, one in found.items() if key[0] in SHOWN}
    assert counts == {
        ("scale", "small"): 2,
        ("scale", "large"): 1,
        ("occlusion", "slight or none"): 1,
        ("occlusion", "medium"): 1,
        ("occlusion", "heavy"): 1,
        ("zoom_in", "none"): 1,
        ("zoom_in", "medium"): 1,
        ("zoom_in", "large"): 1,
        ("viewpoint", "no wear"): 1,
        ("viewpoint", "frontal"): 1,
        ("viewpoint", "side or back"): 1,
    }
    assert found["scale", "small"].acc[5] == 0.5
    assert found["viewpoint", "side or back"].acc[5] == 1


def test_attributes_that_are_not_annotated_and_unknown_categories_have_slices_too():
    found = cut([], [query(1, A, cls=17) | SHOWN], [item(50, SHOP)])
    assert {key[1] for key in found if key[0] in ("viewpoint", "category")} == {"not annotated", "category 17"}


def test_each_group_of_slices_holds_every_query():
    for seed in range(50):
        results, queries, gallery = crowded_world(seed)
        rng = np.random.default_rng(seed)
        queries = [row | dict(zip(SHOWN, rng.integers(0, 4, 4).tolist(), strict=True)) for row in queries]
        hearing = hear(results, queries, gallery)
        score = official.decide(hearing).score
        found = slices.cut(Questions.of(hearing), score.hit_ranks)
        groups = {one.group for one in found}
        assert groups == {"category", "counterparts", *SHOWN}
        for group in groups:
            parts = [one for one in found if one.group == group]
            assert sum(one.num_queries for one in parts) == score.num_queries
            assert sum(one.acc[10] * one.num_queries for one in parts) == pytest.approx(
                score.acc[10] * score.num_queries
            )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([query(1, A) | SHOWN, query(1, A)], r"row 1: scale: expected in all rows or in none, got it in 1 of 2"),
        ([query(1, A), query(1, A) | {"viewpoint": 1}], r"row 1: viewpoint: expected in all rows or in none"),
        ([query(1, A) | SHOWN, query(1, A) | SHOWN | {"zoom_in": 4}], "row 1: zoom_in: expected 1, 2 or 3, .* got 4"),
        ([query(1, A) | SHOWN | {"occlusion": "heavy"}], 'row 0: occlusion: expected an integer, got "heavy"'),
    ],
)
def test_wrong_attributes_are_named(tmp_path, rows, message):
    path = tmp_path / "val_query.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(InputError, match=message):
        Queries.from_json(path)


def annotated() -> Items:
    """Two consumer items in one photo, one elsewhere that nothing answers, and a shop item."""
    return Items(
        image_ids=np.array([1, 1, 2, 3]),
        item_numbers=np.array([1, 2, 1, 1]),
        is_consumer=np.array([True, True, True, False]),
        boxes_xyxy=np.array([[0, 0, 10, 10], [-0.0, 0, 10, 20.5], [0, 0, 10, 10], [0, 0, 10, 10]]),
        category_ids=np.array([1, 2, 3, 1]),
        styles=np.array([1, 1, 4, 1]),
        pair_ids=np.array([7, 7, 8, 7]),
        scales=np.array([1, 2, 3, 0]),
        occlusions=np.array([2, 3, 1, 0]),
        zoom_ins=np.array([3, 1, 2, 0]),
        viewpoints=np.array([1, 1, 0, 0]),
    )


def test_attributes_come_with_annotated_items_and_can_be_joined(tmp_path):
    queries, _ = truth_from_items(annotated())
    assert {name: column.tolist() for name, column in queries.attributes.items()} == {
        "scale": [1, 2, 3],
        "occlusion": [2, 3, 1],
        "zoom_in": [3, 1, 2],
        "viewpoint": [1, 1, 0],
    }
    path = tmp_path / "val_query.json"
    rows = [query(1, [0, 0, 10, 20.5], 2, 1, 7), query(2, [0, 0, 10, 10], 3, 0, 8), query(1, [0, 0, 10, 10], 1, 1, 7)]
    path.write_text(json.dumps(rows))
    joined = with_attributes(Queries.from_json(path), annotated())
    assert joined.attributes["scale"].tolist() == [2, 0, 1]  # the item that nothing answers is not asked
    assert joined.attributes["zoom_in"].tolist() == [1, 0, 3]
    rows[2]["cls"] = 5
    path.write_text(json.dumps(rows))
    with pytest.raises(InputError, match=r"val_query\.json: row 2: DF2 has no consumer item of photo 1 with this box"):
        with_attributes(Queries.from_json(path), annotated(), "DF2")


def honest(count: int = 60):
    """A file without a flaw: a box a query, all 13 categories, pixels."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(20, 200, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(100, 200, (count, 2))], axis=1).tolist()
    queries = [query(n, box, n % 13 + 1, 1, n) for n, box in enumerate(boxes)]
    gallery = [item(1000 + n, box, 1, n) for n, box in enumerate(boxes)]
    results = [
        result(
            n,
            box,
            n % 13 + 1,
            0.5 + n / 1000,
            {rank: (1000 + (n + rank - 1) % count, boxes[(n + rank - 1) % count]) for rank in range(1, 21)},
        )
        for n, box in enumerate(boxes)
    ]
    return results, queries, gallery


def xywh(box):
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def change(field, new):
    def changed(row):
        return row | {field: new(row[field])}

    return changed


@pytest.mark.parametrize(
    ("changed", "doubt"),
    [
        (change("query_bbox", xywh), r"query_bbox: read as \[x, y, width, height\] the boxes overlap .* by 1.00 on"),
        (
            change("gallery_bbox", lambda boxes: list(map(xywh, boxes))),
            r"gallery_bbox: read as \[x, y, width, height\]",
        ),
        (change("query_bbox", lambda box: [box[2], box[1], box[0], box[3]]), "query_bbox: 100% of the boxes are inver"),
        (change("query_bbox", lambda box: [side / 1000 for side in box]), "query_bbox: no coordinate is above 1"),
        (
            change("gallery_bbox", lambda boxes: [[side / 1000 for side in box] for box in boxes]),
            "gallery_bbox: no coordinate is above 1",
        ),
        (
            change("query_bbox", lambda box: [side * 3 for side in box]),
            "query_bbox: the best box of each item overlaps",
        ),
        (change("query_cls", lambda number: number - 1), "query_cls: the categories look like 0–12"),
        (change("query_image_id", lambda number: number + 1000), "query_image_id: 100% of the rows are of photos"),
        (change("gallery_image_id", lambda ids: [n + 50_000 for n in ids]), "gallery_image_id: 100% of the entries"),
        (change("query_cls", lambda _: 99), "No row speaks for any query"),
    ],
)
def test_a_wrong_file_is_doubted(changed, doubt):
    results, queries, gallery = honest()
    found = plausibility.doubts(hear([changed(row) for row in results], queries, gallery))
    assert len([one for one in found if re.search(doubt, one)]) == 1, found
    assert len({one.split(":")[0] for one in found}) == len(found)  # one sentence a field


def test_an_honest_file_is_not_doubted_nor_one_with_a_few_flaws():
    results, queries, gallery = honest()
    assert plausibility.doubts(hear(results, queries, gallery)) == []
    results[7]["query_image_id"] = 5000
    results[8]["query_bbox"] = xywh(results[8]["query_bbox"])
    results[9]["gallery_image_id"] = [7777] * 20
    results[10] |= {"query_cls": 1, "query_bbox": FAR}
    results[12]["query_bbox"] = [results[12]["query_bbox"][side] for side in (2, 1, 0, 3)]
    results.append(results[11] | {"query_cls": 2, "query_score": 0.1})
    assert plausibility.doubts(hear(results, queries, gallery)) == []


def test_an_empty_file_and_a_hedged_one_are_doubted():
    results, queries, gallery = honest()
    assert plausibility.doubts(hear([], queries, gallery)) == ["The file holds no row, so every query is missed."]
    hedged = [row | {"query_cls": cls} for row in results for cls in range(1, 14)]
    (doubt,) = plausibility.doubts(hear(hedged, queries, gallery))
    assert doubt.startswith("query_cls: 100% of the boxes stand under at least 7 categories at once (up to 13)")


def test_equal_scores_are_doubted_where_they_decide():
    results, queries, gallery = honest()
    for row in results:
        row["query_score"] = 1
    assert plausibility.doubts(hear(results, queries, gallery)) == []
    (doubt,) = plausibility.doubts(hear([*results, results[4]], queries, gallery))
    assert doubt.startswith("query_score: all are 1, so officially the first row of each item speaks for it (1 queries")


def test_one_row_is_no_statistic():
    found = plausibility.doubts(hear([result(1, A, right={2: (50, SHOP)})], [query(1, A)], [item(50, SHOP)]))
    assert [one.split(":")[0] for one in found] == ["gallery_image_id"]


@pytest.mark.parametrize("protocol", ["official", "strict"])
def test_an_examination_is_whole(protocol):
    for seed in range(100):
        results, queries, gallery = crowded_world(seed)
        hearing = hear(results, queries, gallery)
        found = examine(hearing.results, hearing.queries, hearing.gallery, protocol)
        judged = {
            one.PROTOCOL: one.judge(hearing.results, hearing.queries, hearing.gallery) for one in (official, strict)
        }
        for name, outcome in judged.items():
            assert found.outcomes[name].score.hit_ranks.tolist() == outcome.score.hit_ranks.tolist()
        chosen = judged[protocol].score
        told = json.loads(json.dumps(found.as_json()))
        assert told["protocol"] == found.ledger.protocol == protocol
        assert told["num_queries"] == chosen.num_queries
        assert told["acc"] == told["protocols"][protocol]["acc"] == {str(k): value for k, value in chosen.acc.items()}
        assert told["ledger"]["hit"] == round(chosen.acc[20] * chosen.num_queries)
        heard = strict.is_heard(hearing) if protocol == "strict" else None
        assert found.ledger.columns() == account(hearing, judged[protocol], heard).columns()
        assert told["ladder"][0]["acc"] == told["protocols"]["official"]["acc"]
        categories = [one for one in told["slices"] if one["group"] == "category"]
        assert sum(one["num_queries"] for one in categories) == chosen.num_queries
        low, high = told["protocols"][protocol]["interval"]["10"]
        assert low <= chosen.acc[10] <= high
        lost, gained = (sum(told["differences"][0][side].values()) for side in ("lost", "gained"))
        accs = [told["protocols"][name]["acc"]["10"] for name in ("official", "strict")]
        assert accs[0] - accs[1] == pytest.approx((lost - gained) / chosen.num_queries)


def test_gallery_detections_reach_the_ledger():
    hearing = hear([result(1, A)], [query(1, A)], [item(50, SHOP)])
    nothing = GalleryBoxes(np.zeros(0, np.int64), np.zeros((0, 4)))
    found = examine(hearing.results, hearing.queries, hearing.gallery, gallery_boxes=nothing)
    assert found.as_json()["ledger"]["not in gallery"] == 1
    assert found.doubts[0].startswith("gallery detections: only 0% of the annotated shop items are in a photo with a")
    somewhere = GalleryBoxes(np.array([50]), np.array([FAR]))
    found = examine(hearing.results, hearing.queries, hearing.gallery, gallery_boxes=somewhere)
    assert not any(doubt.startswith("gallery detections") for doubt in found.doubts)
