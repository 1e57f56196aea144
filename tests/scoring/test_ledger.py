import csv

import numpy as np
import pyarrow.parquet
import pytest

from harness.scoring import ladder, official, strict
from harness.scoring.ledger import FATES, Fate, GalleryBoxes, account
from harness.types import RANKS, InputError
from tests.scoring import oracle, strict_oracle
from tests.scoring.worlds import FAR, crowded_world, hear, item, query, random_world, result

A = [0, 0, 100, 100]
SHOP = [10, 10, 110, 110]
TRUTH = [query(1, A)], [item(50, SHOP), item(51, SHOP), item(52, SHOP, style=2)]


def row(bbox, score=0.9, right=None, cls=1):
    return result(1, bbox, cls=cls, score=score, right=right)


def ledger(results, truth=TRUTH, gallery_boxes=None):
    hearing = hear(results, *truth)
    return account(hearing, official.decide(hearing), gallery_boxes=gallery_boxes)


def searched(*boxes) -> GalleryBoxes:
    return GalleryBoxes(
        np.array([photo for photo, _ in boxes], np.int64), np.array([box for _, box in boxes], float).reshape(-1, 4)
    )


FOUND, ELSEWHERE = searched((51, [10, 10, 110, 60])), searched((51, FAR), (52, SHOP), (53, SHOP))


@pytest.mark.parametrize(
    ("rows", "gallery_boxes", "fate"),
    [
        ([row(A, right={20: (51, SHOP)})], None, Fate.HIT),
        ([row(A, right={20: (51, SHOP)})], ELSEWHERE, Fate.HIT),
        ([], None, Fate.NO_DETECTION),
        ([result(2, A)], FOUND, Fate.NO_DETECTION),
        ([row(A, cls=2, right={1: (50, SHOP)})], None, Fate.WRONG_CLASS),
        ([row([0, 0, 9, 9]), row(A, 0.1, {20: (50, SHOP)})], None, Fate.DISPLACED),
        ([row([0, 0, 9, 9]), row(A, 0.1, {20: (50, SHOP)})], ELSEWHERE, Fate.DISPLACED),
        ([row(A), row([0, 0, 9, 9], 0.1, {1: (50, SHOP)})], None, Fate.RANKED_BELOW),
        ([row([0, 0, 9, 9]), row(A, 0.1, {1: (50, SHOP)}, cls=2)], None, Fate.RANKED_BELOW),
        ([row(A)], ELSEWHERE, Fate.NOT_IN_GALLERY),
        ([row(A)], searched(), Fate.NOT_IN_GALLERY),
        ([row(A, right={7: (50, FAR)})], ELSEWHERE, Fate.NOT_IN_GALLERY),
        ([row(A, right={7: (50, FAR)})], FOUND, Fate.WRONG_BOX),
        ([row(A, right={7: (50, FAR), 9: (51, FAR)})], None, Fate.WRONG_BOX),
        ([row(A, right={7: (52, SHOP)})], None, Fate.RANKED_BELOW),
        ([row(A)], FOUND, Fate.RANKED_BELOW),
    ],
)
def test_every_outcome_by_hand(rows, gallery_boxes, fate):
    found = ledger(rows, gallery_boxes=gallery_boxes)
    assert found.columns()["outcome"] == [fate]
    expected = {str(one): int(one is fate) for one in FATES}
    if gallery_boxes is None:
        del expected["not in gallery"]
    assert found.totals() == expected


def test_the_columns_of_a_query():
    queries = [query(1, A, style=0, pair_id=7), query(3, A, cls=5, style=2, pair_id=9), query(4, A, style=1, pair_id=9)]
    gallery = [item(50, SHOP, 2, 9), item(50, FAR, 2, 9), item(51, SHOP, 1, 9)]
    rows = [result(3, A, cls=5, score=0.3), result(3, [0, 0, 100, 80], 5, 0.75, {4: (50, A), 3: (50, [0, 0, 9, 9])})]
    assert ledger(rows, (queries, gallery)).columns() == {
        "query_row": [1, 2],
        "image_id": [3, 4],
        "pair_id": [9, 9],
        "style": [2, 1],
        "category": [5, 1],
        "outcome": ["hit", "no detection"],
        "rank": [4, None],
        "speaking_row": [1, None],
        "overlap": [0.8, None],
        "score": [0.75, None],
        "photo_rank": [3, None],
        "num_counterparts": [2, 1],
    }


def random_searched(gallery, seed):
    rng = np.random.default_rng(seed)
    return [
        {"image_id": other["gallery_image_id"], "bbox": [x1, y1, (x2 - x1) * rng.choice([0.2, 1]), y2 - y1]}
        for other in gallery
        if rng.random() < 0.5
        for x1, y1, x2, y2 in [other["bbox"]]
    ]


def searched(known):
    if known is None:
        return None
    boxes_xywh = np.array([row["bbox"] for row in known], float).reshape(-1, 4)
    boxes_xyxy = np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)
    return GalleryBoxes(np.array([row["image_id"] for row in known], int), boxes_xyxy)


@pytest.mark.parametrize("make_world", [random_world, crowded_world])
def test_agrees_with_the_oracle(make_world):
    seen = set()
    for seed in range(200):
        results, queries, gallery = make_world(seed)
        hearing, boxes = hear(results, queries, gallery), strict_oracle.boxes(results, queries, gallery)
        known = random_searched(gallery, seed) if seed % 2 else None
        outcome = official.decide(hearing)
        found = account(hearing, outcome, gallery_boxes=searched(known))
        speakers = oracle.hit_ranks(results, queries, gallery)[1]
        assert found.columns()["outcome"] == strict_oracle.fates(boxes, speakers, queries, gallery, known), seed
        assert sum(found.totals().values()) == len(found) == outcome.score.num_queries
        assert found.totals()["hit"] == (outcome.score.hit_ranks > 0).sum()
        seen |= set(found.columns()["outcome"])

        second = strict.decide(hearing, strict.speakers(hearing))
        found = account(hearing, second, strict.is_heard(hearing))
        assert found.protocol == "strict"
        kept = [b for b in boxes if b.overlap >= 0.5]
        assert found.columns()["outcome"] == strict_oracle.fates(
            kept, second.speaking_rows.tolist(), queries, gallery, None
        ), seed
    assert seen == set(map(str, FATES))


@pytest.mark.parametrize("suffix", ["parquet", "csv", "CSV"])
def test_a_ledger_is_written_whole(tmp_path, suffix):
    rows = [row([0, 0, 100, 80], right={7: (50, FAR)})]
    found = ledger(rows, ([*TRUTH[0], query(2, A)], TRUTH[1]))
    path = tmp_path / f"ledger.{suffix}"
    path.write_text("an older one")
    found.write(path)
    assert list(tmp_path.iterdir()) == [path]
    if suffix == "parquet":
        assert pyarrow.parquet.read_table(path).to_pydict() == found.columns()
    else:
        with open(path, newline="", encoding="utf-8") as stream:
            back = list(csv.reader(stream))
        expected = [
            ["" if value is None else str(value) for value in values]
            for values in zip(*found.columns().values(), strict=True)
        ]
        assert back == [list(found.columns()), *expected]
        assert back[1][5] == "right photo, wrong box"


def test_a_ledger_makes_its_folder(tmp_path):
    """It failed after the scoring, as other outputs do not, and named a file that nobody had asked for."""
    ledger([]).write(tmp_path / "new" / "ledger.csv")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["ledger.csv"]


def test_columns_without_a_value_keep_their_type(tmp_path):
    ledger([]).write(tmp_path / "ledger.parquet")
    schema = pyarrow.parquet.read_schema(tmp_path / "ledger.parquet")
    assert [str(schema.field(name).type) for name in ("rank", "score", "outcome")] == ["int64", "double", "string"]


@pytest.mark.parametrize("name", ["ledger.txt", "ledger"])
def test_an_unknown_format_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"ledger.*: expected a ledger file that ends in \.parquet or \.csv, got"):
        ledger([]).write(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def climbed(results, queries, gallery) -> list[ladder.Rung]:
    hearing = hear(results, queries, gallery)
    return ladder.climb(hearing, official.decide(hearing))


def test_the_ladder_by_hand():
    """Five queries, each lost by another stage, and one that is right."""
    queries = [query(photo, A) for photo in range(1, 7)]
    right = {1: (50, SHOP)}
    rows = [
        result(1, A, right=right),
        result(2, [0, 0, 9, 9], score=0.95),
        result(2, A, right=right, score=0.5),
        result(3, A, cls=2, right=right),
        result(4, A, right={1: (50, FAR)}),
        # photo 5 has no detection
        result(6, A),
    ]
    rungs = climbed(rows, queries, TRUTH[1])
    assert [round(rung.acc[1] * 6) for rung in rungs] == [1, 2, 3, 4, 5]
    assert [rung.gained[20] for rung in rungs] == pytest.approx([1 / 6] * 5)
    assert [rung.name for rung in rungs] == [
        "as handed in",
        "query boxes",
        "query classes",
        "gallery boxes",
        "every query detected",
    ]


def test_the_ladder_agrees_with_the_oracle_and_no_rung_loses():
    gains = np.zeros(5)
    for seed in range(200):
        results, queries, gallery = crowded_world(seed)
        boxes = strict_oracle.boxes(results, queries, gallery)
        rungs = climbed(results, queries, gallery)
        assert rungs[0].acc == oracle.accuracy(oracle.hit_ranks(results, queries, gallery)[0])
        for rung, ranks in zip(rungs[1:], strict_oracle.ladder_ranks(boxes, queries), strict=True):
            assert rung.acc == oracle.accuracy([rank % strict_oracle.MISS for rank in ranks])
            assert min(rung.gained.values()) >= 0
        gains += [rung.gained[10] for rung in rungs]
        assert rungs[0].gained == rungs[0].acc
        assert tuple(rungs[0].acc) == RANKS
    assert (gains > 0.5).all()
