import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.scoring import hearing, official
from harness.scoring.official import evaluate, evaluate_files, judge
from harness.scoring.results import Results
from harness.scoring.truth import Gallery, Queries, truth_from_items
from harness.types import Detections, InputError, Items, Ranking
from tests.scoring import oracle
from tests.scoring.worlds import FAR, hear, item, query, random_world, result, write

A = [0, 0, 100, 100]
B = [200, 0, 300, 100]
SHOP = [10, 10, 110, 110]


def ranks(folder: Path, results, queries, gallery) -> list[int]:
    return evaluate_files(*write(folder, results, queries, gallery)).hit_ranks.tolist()


def test_rule_1_a_box_that_overlaps_nothing_goes_to_the_first_item(tmp_path):
    queries = [query(1, A), query(1, B, style=2)]
    gallery = [item(50, SHOP), item(60, SHOP, style=2)]
    stray = result(1, FAR, right={3: (50, SHOP), 4: (60, SHOP)})
    assert ranks(tmp_path, [stray], queries, gallery) == [3, 0]
    assert ranks(tmp_path, [stray], queries[::-1], gallery) == [4, 0]


def test_rule_1_a_box_goes_to_the_item_that_it_overlaps_most(tmp_path):
    queries = [query(1, [0, 0, 100, 100]), query(1, [50, 0, 150, 100], style=2)]
    gallery = [item(50, SHOP), item(60, SHOP, style=2)]
    box = result(1, [40, 0, 140, 100], right={1: (50, SHOP), 2: (60, SHOP)})
    assert ranks(tmp_path, [box], queries, gallery) == [0, 2]


def test_rule_1_equal_overlaps_go_to_the_first_item(tmp_path):
    queries = [query(1, [0, 0, 100, 100]), query(1, [100, 0, 200, 100], style=2)]
    gallery = [item(50, SHOP), item(60, SHOP, style=2)]
    middle = result(1, [50, 0, 150, 100], right={1: (50, SHOP), 2: (60, SHOP)})
    assert ranks(tmp_path, [middle], queries, gallery) == [1, 0]
    assert ranks(tmp_path, [middle], queries[::-1], gallery) == [2, 0]


def test_rule_1_items_of_style_0_attract_boxes(tmp_path):
    asked, unasked = query(1, B), query(1, A, style=0)
    box = result(1, [0, 0, 90, 90], right={1: (50, SHOP)})
    assert ranks(tmp_path, [box], [asked], [item(50, SHOP)]) == [1]
    assert ranks(tmp_path, [box], [asked, unasked], [item(50, SHOP)]) == [0]


def test_rule_2_only_a_box_of_the_right_class_speaks(tmp_path):
    wrong = result(1, A, cls=2, score=0.99, right={1: (50, SHOP)})
    right = result(1, A, cls=1, score=0.10, right={7: (50, SHOP)})
    truth = [query(1, A, cls=1)], [item(50, SHOP)]
    assert ranks(tmp_path, [wrong], *truth) == [0]
    assert ranks(tmp_path, [wrong, right], *truth) == [7]


def test_rule_2_the_highest_score_speaks_and_the_first_of_equals(tmp_path):
    truth = [query(1, A)], [item(50, SHOP)]
    rows = [result(1, A, score=score, right={rank: (50, SHOP)}) for rank, score in ((2, 0.5), (3, 0.8), (4, 0.8))]
    assert ranks(tmp_path, rows, *truth) == [3]
    assert ranks(tmp_path, [rows[0], rows[2], rows[1]], *truth) == [4]


def test_rule_3_needs_photo_pair_style_and_overlap(tmp_path):
    gallery = [
        item(50, SHOP),
        item(51, SHOP, style=2),
        item(52, SHOP, pair_id=2),
        item(53, [0, 0, 100, 100]),
    ]

    def rank(entry):
        return ranks(tmp_path, [result(1, A, right={1: entry})], [query(1, A)], gallery)[0]

    assert rank((50, SHOP)) == 1
    assert rank((51, SHOP)) == 0
    assert rank((52, SHOP)) == 0
    assert rank((54, SHOP)) == 0
    assert rank((53, [0, 0, 100, 50])) == 1  # an IoU of exactly 0.5 is enough
    assert rank((53, [0, 0, 100, 49.999])) == 0
    # With a pixel added to width and height, 50.6 of 101 rows would be enough.
    assert rank((53, [0, 0, 100, 49.6])) == 0


def test_rule_3_any_matching_item_of_the_photo_counts(tmp_path):
    gallery = [item(50, FAR), item(50, SHOP), item(50, A, style=2)]
    row = result(1, A, right={1: (50, A), 2: (50, [500, 500, 600, 600]), 6: (50, SHOP)})
    # A covers 8,100 of 11,900 pixels of A and SHOP together: rank 1 is right for style 1 as well.
    assert ranks(tmp_path, [row], [query(1, A)], gallery) == [1]
    assert ranks(tmp_path, [row], [query(1, A)], [gallery[0], gallery[1]]) == [1]
    assert ranks(tmp_path, [row], [query(1, A)], [gallery[0]]) == [0]


@pytest.mark.parametrize(
    ("rank", "acc"),
    [
        (1, "11111"),
        (5, "01111"),
        (6, "00111"),
        (10, "00111"),
        (11, "00011"),
        (15, "00011"),
        (16, "00001"),
        (20, "00001"),
    ],
)
def test_rule_3_accuracy_at_k(tmp_path, rank, acc):
    score = evaluate_files(*write(tmp_path, [result(1, A, right={rank: (50, SHOP)})], [query(1, A)], [item(50, SHOP)]))
    assert [score.acc[k] for k in (1, 5, 10, 15, 20)] == [int(bit) for bit in acc]


def test_rule_3_entries_after_the_twentieth_are_ignored(tmp_path):
    row = result(1, A)
    row["gallery_image_id"] = [*row["gallery_image_id"], 50]
    row["gallery_bbox"] = [*row["gallery_bbox"], SHOP]
    assert ranks(tmp_path, [row], [query(1, A)], [item(50, SHOP)]) == [0]


def test_rule_4_photos_without_detection_stay_in_the_denominator(tmp_path):
    queries = [query(1, A), query(2, A), query(2, B, style=0), query(3, A)]
    gallery = [item(50, SHOP)]
    score = evaluate_files(*write(tmp_path, [result(1, A, right={1: (50, SHOP)})], queries, gallery))
    assert (score.protocol, score.num_queries) == ("official", 3)
    assert score.acc == dict.fromkeys((1, 5, 10, 15, 20), 1 / 3)
    assert evaluate_files(*write(tmp_path, [], queries, gallery)).acc[20] == 0


def test_rule_5_rows_with_fewer_than_20_entries_are_refused(tmp_path):
    good, short = result(1, A), result(1, B)
    short["gallery_image_id"] = short["gallery_image_id"][:19]
    with pytest.raises(InputError, match=r"results\.json: row 1: gallery_image_id: expected 20 entries, got 19"):
        ranks(tmp_path, [good, short], [query(1, A)], [item(50, SHOP)])


def test_rule_5_ragged_rows_are_refused(tmp_path):
    good, long = result(1, A), result(1, B)
    long["gallery_bbox"] = [*long["gallery_bbox"], A]
    with pytest.raises(InputError, match=r"row 1: gallery_bbox: expected 20 entries .* got 21"):
        ranks(tmp_path, [good, long], [query(1, A)], [item(50, SHOP)])
    long["gallery_image_id"] = [*long["gallery_image_id"], 5]
    with pytest.raises(InputError, match=r"row 1: gallery_image_id: expected 20 entries .* got 21"):
        ranks(tmp_path, [good, long], [query(1, A)], [item(50, SHOP)])


def test_rule_5_string_ids_are_refused(tmp_path):
    row = result(1, A, right={4: (50, SHOP)})
    truth = [query(1, A)], [item(50, SHOP)]
    row["query_image_id"] = "1"
    with pytest.raises(InputError, match=r'row 0: query_image_id: expected an integer, got "1"'):
        ranks(tmp_path, [row], *truth)
    row["query_image_id"] = 1
    row["gallery_image_id"][3] = "50"
    with pytest.raises(InputError, match=r"row 0: gallery_image_id"):
        ranks(tmp_path, [row], *truth)


def test_rule_5_a_query_without_gallery_counterpart_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"val_query\.json: row 1: style: .*val_gallery\.json has no item of pair 1 and"
    ):
        ranks(tmp_path, [], [query(1, A), query(1, B, style=2)], [item(50, SHOP), item(50, SHOP, style=2, pair_id=3)])


def test_rule_6_one_box_under_all_classes_and_a_tiny_box_of_high_score(tmp_path):
    truth = [query(1, A, cls=9)], [item(50, SHOP)]
    hedged = [result(1, A, cls=cls, right={1: (50, SHOP)}) for cls in range(1, 14)]
    assert ranks(tmp_path, hedged, *truth) == [1]
    tiny = result(1, [0, 0, 1, 1], cls=9, score=0.95)
    assert ranks(tmp_path, [*hedged, tiny], *truth) == [0]


@pytest.mark.parametrize("seed", range(300))
def test_agrees_with_the_oracle(tmp_path, seed):
    world = random_world(seed)
    paths = write(tmp_path, *world)
    outcome = judge(Results.from_json(paths[0]), Queries.from_json(paths[1]), Gallery.from_json(paths[2]))
    expected, speakers = oracle.hit_ranks(*world)
    assert outcome.score.hit_ranks.tolist() == expected
    assert outcome.speaking_rows.tolist() == speakers
    assert outcome.score.acc == oracle.accuracy(expected)
    assert outcome.query_rows.tolist() == [n for n, row in enumerate(world[1]) if row["style"] > 0]


def test_the_random_worlds_are_not_trivial():
    ranks = [rank for seed in range(300) for rank in oracle.hit_ranks(*random_world(seed))[0]]
    assert min(ranks.count(rank) for rank in (0, 1, 2, 3)) > 20
    assert sum(rank > 5 for rank in ranks) > 20


@pytest.mark.parametrize(
    "hashed", [hearing._hashed, lambda keys, photos, _: 0 * (keys + photos)], ids=["", "colliding"]
)
def test_neither_blocks_nor_colliding_hashes_change_the_outcome(monkeypatch, hashed):
    monkeypatch.setattr(hearing, "_hashed", hashed)
    monkeypatch.setattr(hearing, "_BLOCK", 3)
    for seed in range(100):
        world = random_world(seed)
        assert official.decide(hear(*world)).score.hit_ranks.tolist() == oracle.hit_ranks(*world)[0]


def features(results, queries, gallery) -> set[str]:
    """What a world contains of all that the rules speak of."""
    asked = [row for row in queries if row["style"] > 0]
    photos = [row["query_image_id"] for row in queries]
    counterparts = [
        sum((item["pair_id"], item["style"]) == (row["pair_id"], row["style"]) for item in gallery) for row in asked
    ]
    detected = {row["query_image_id"] for row in results}
    overlaps = {
        max(oracle.overlap(row["query_bbox"], other["bbox"]) for other in queries if other["query_image_id"] == photo)
        for row in results
        if (photo := row["query_image_id"]) in photos
    }
    speakers = oracle.hit_ranks(results, queries, gallery)[1]
    backwards = [len(results) - 1 - row for row in oracle.hit_ranks(results[::-1], queries, gallery)[1]]
    shown = {photo for row in results for photo in row["gallery_image_id"]}
    holds = {
        "several items in a photo": len(set(photos)) < len(photos),
        "an item of style 0": len(asked) < len(queries),
        "one counterpart": 1 in counterparts,
        "several counterparts": any(count > 1 for count in counterparts),
        "more than 5 counterparts": any(count > 5 for count in counterparts),
        "no detection at all": not results,
        "a queried photo without detection": bool({row["query_image_id"] for row in asked} - detected),
        "a tie in score that decides who speaks": any(
            row not in (-1, other) for row, other in zip(speakers, backwards, strict=True)
        ),
        "a box without overlap": 0.0 in overlaps,
        "a box of low overlap": any(0 < overlap < 0.5 for overlap in overlaps),
        "a detected photo without items": bool(detected - set(photos)),
        "a shown photo without items": bool(shown - {item["gallery_image_id"] for item in gallery}),
        "a gallery photo that is never shown": bool({item["gallery_image_id"] for item in gallery} - shown),
        "several right entries": any(
            sum(photo in {item["gallery_image_id"] for item in gallery} for photo in row["gallery_image_id"]) > 1
            for row in results
        ),
    }
    return {name for name, is_held in holds.items() if is_held}


def test_the_random_worlds_hold_everything_that_the_rules_speak_of():
    worlds = [features(*random_world(seed)) for seed in range(300)]
    counts = {name: sum(name in world for world in worlds) for name in set().union(*worlds)}
    assert len(counts) == 14, sorted(counts)
    assert min(counts.values()) >= 10, counts


def set_field(field, value):
    def change(row):
        row[field] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_field("query_image_id", True), "row 1: query_image_id: expected an integer, got true"),
        (set_field("query_image_id", 1.5), "row 1: query_image_id: expected an integer, got 1.5"),
        (set_field("query_image_id", 1e300), "row 1: query_image_id: expected an integer"),
        (set_field("query_cls", None), "row 1: query_cls: expected an integer, got null"),
        (set_field("query_score", "0.9"), 'row 1: query_score: expected a number, got "0.9"'),
        (set_field("query_score", "NaN"), "row 1: query_score: expected a finite number, got NaN"),
        (set_field("query_score", "1e999"), "row 1: query_score: expected a finite number, got Infinity"),
        (set_field("query_image_id", 1 << 70), "row 1: query_image_id: expected an integer of at most 64 bits"),
        (set_field("gallery_bbox", [A] * 19 + [[0, 0, 1, "-Infinity"]]), r"row 1: gallery_bbox\[19\]: expected a box"),
        (set_field("query_bbox", [0, 0, 1]), "row 1: query_bbox: expected a box"),
        (set_field("query_bbox", [0, 0, 1, "1"]), "row 1: query_bbox: expected a box"),
        (set_field("query_bbox", None), "row 1: query_bbox: expected a box"),
        (set_field("gallery_image_id", 7), "row 1: gallery_image_id: expected a list, got 7"),
        (set_field("gallery_image_id", [1.5] * 20), "row 1: gallery_image_id: expected a list of 20 integers"),
        (set_field("gallery_bbox", [A] * 12 + [[0, 0, 1]] + [A] * 7), r"row 1: gallery_bbox\[12\]: expected a box"),
        (set_field("gallery_bbox", [A] * 19 + [[0, None, 1, 1]]), r"row 1: gallery_bbox\[19\]: expected a box"),
        (lambda row: row.pop("query_score"), "row 1: the field 'query_score' is missing"),
        (lambda row: row.pop("gallery_bbox"), "row 1: the field 'gallery_bbox' is missing"),
    ],
)
def test_wrong_rows_are_named(tmp_path, change, message):
    rows = [result(1, A), result(1, A)]
    change(rows[1])
    paths = write(tmp_path, [], [query(1, A)], [item(50, SHOP)])
    text = json.dumps(rows)
    for name in ("NaN", "1e999", "-Infinity"):  # numbers that JSON has not, or that no float holds
        text = text.replace(f'"{name}"', name)
    paths[0].write_text(text)
    with pytest.raises(InputError, match=message):
        evaluate_files(*paths)


def test_whole_numbers_written_as_floats_are_read(tmp_path):
    row = result(1, A, right={2: (50, SHOP)})
    row["query_image_id"], row["query_cls"] = 1.0, 1.0
    row["gallery_image_id"] = [float(value) for value in row["gallery_image_id"]]
    assert ranks(tmp_path, [row], [query(1, A)], [item(50, SHOP)]) == [2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}', "expected a JSON list with one object a row"),
        (b"[1]", "row 0: expected an object, got 1"),
        (b'[{"query_image_id": 1,', "ends in the middle of row 0: the file is cut off"),
        (b"", "is not JSON"),
        (b"\xff\xfe", "is UTF-16; write it as plain UTF-8"),
        (b"NaN", "expected a JSON list with one object a row, got 'NaN'"),
    ],
)
def test_files_that_are_no_result_lists_are_refused(tmp_path, content, message):
    paths = write(tmp_path, [], [query(1, A)], [item(50, SHOP)])
    paths[0].write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        evaluate_files(*paths)
    assert str(paths[0]) in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    paths = write(tmp_path, [], [query(1, A)], [item(50, SHOP)])
    with pytest.raises(InputError, match=r"nowhere\.json: no such file"):
        evaluate_files(tmp_path / "nowhere.json", *paths[1:])
    with pytest.raises(InputError, match="cannot be read"):
        evaluate_files(tmp_path, *paths[1:])


def test_wrong_truth_is_refused(tmp_path):
    gallery = [item(50, SHOP), item(51, SHOP, pair_id=2)]
    with pytest.raises(InputError, match=r"val_query\.json: style: no row has a style > 0"):
        ranks(tmp_path, [], [query(1, A, style=0)], gallery)
    with pytest.raises(InputError, match=r"row 2: pair_id: expected 1, as in row 0 of the same photo 1, got 2"):
        ranks(tmp_path, [], [query(1, A), query(2, A), query(1, B, pair_id=2)], gallery)
    broken = item(50, SHOP)
    del broken["style"]
    with pytest.raises(InputError, match=r"val_gallery\.json: row 1: the field 'style' is missing"):
        ranks(tmp_path, [], [query(1, A)], [gallery[0], broken])


def test_results_in_memory_check_themselves():
    columns = (np.ones(1, int), np.zeros((1, 4)), np.ones(1), np.ones(1, int), np.ones((1, 20), int))
    with pytest.raises(ValueError, match="gallery_boxes_xyxy_RK4: expected shape"):
        Results(*columns, np.zeros((1, 19, 4)))
    with pytest.raises(ValueError, match="row 0 is not finite"):
        Results(*columns, np.full((1, 20, 4), math.nan))


def test_a_ranking_scores_as_its_file_would(tmp_path):
    """Two consumer boxes and 22 shop boxes: what is written from the ranking and what is kept agree."""
    rng = np.random.default_rng(3)
    corners = np.sort(rng.uniform(0, 90, (24, 2, 2)), axis=1).reshape(24, 4)
    image_ids = np.array([1, 1, *range(101, 123)])
    boxes = Detections(image_ids, corners, rng.uniform(0, 1, 24), np.ones(24, int))
    order = np.stack([rng.permutation(22)[:21] + 2 for _ in range(2)])
    ranking = Ranking(np.array([0, 1]), order, np.zeros((2, 21), np.float32))
    queries = [query(1, corners[0].tolist()), query(1, corners[1].tolist(), style=2)]
    gallery = [item(int(image_ids[n]), corners[n].tolist(), style=1 + n % 2) for n in range(2, 24)]
    rows = [
        {
            "query_image_id": int(image_ids[n]),
            "query_bbox": corners[n].tolist(),
            "query_cls": 1,
            "query_score": float(boxes.scores[n]),
            "gallery_image_id": image_ids[order[n][:20]].tolist(),
            "gallery_bbox": corners[order[n][:20]].tolist(),
        }
        for n in (0, 1)
    ]
    paths = write(tmp_path, rows, queries, gallery)
    kept = evaluate(Results.from_ranking(ranking, boxes), Queries.from_json(paths[1]), Gallery.from_json(paths[2]))
    assert kept.hit_ranks.tolist() == evaluate_files(*paths).hit_ranks.tolist()
    assert kept.hit_ranks.max() > 0


def test_truth_of_annotated_items():
    """Items: two consumer (one without counterpart), one consumer of style 0, two shop."""
    count = 5
    items = Items(
        image_ids=np.array([1, 1, 2, 3, 4]),
        item_numbers=np.array([1, 2, 1, 1, 1]),
        is_consumer=np.array([True, True, True, False, False]),
        boxes_xyxy=np.tile(np.array([0.0, 0, 10, 10]), (count, 1)),
        category_ids=np.array([1, 2, 3, 1, 2]),
        styles=np.array([1, 2, 0, 1, 2]),
        pair_ids=np.array([7, 7, 8, 7, 9]),
        **{name: np.ones(count, int) for name in ("scales", "occlusions", "zoom_ins", "viewpoints")},
    )
    queries, gallery = truth_from_items(items)
    assert queries.image_ids.tolist() == [1, 1, 2]
    assert queries.styles.tolist() == [1, 0, 0]
    assert queries.asked_rows.tolist() == [0]
    assert gallery.pair_ids.tolist() == [7, 9]


def test_scoring_needs_neither_torch_nor_pycocotools(tmp_path):
    paths = write(tmp_path, [result(1, A, right={1: (50, SHOP)})], [query(1, A)], [item(50, SHOP)])
    program = (
        "import sys; from pathlib import Path; from harness.scoring.official import evaluate_files; "
        "print(evaluate_files(*map(Path, sys.argv[1:])).acc[1], {'torch', 'pycocotools', 'numba'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *paths],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "1.0 set()"


def test_the_row_that_is_named_is_the_one_that_is_too_large(tmp_path):
    """The smallest integer of 64 bits is one of them, but the row that had it was blamed for another."""
    rows = [result(-(2**63), [0, 0, 1, 1]), result(2**63, [0, 0, 1, 1])]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(InputError, match="row 1: query_image_id: expected an integer of at most 64 bits"):
        Results.from_json(path)
