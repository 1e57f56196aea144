import random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.scoring import official, strict
from harness.scoring.differences import Differences, Reason, compare
from harness.scoring.hedging import same_boxes
from harness.scoring.truth import Gallery
from harness.types import InputError
from tests.scoring import oracle, strict_oracle
from tests.scoring.worlds import FAR, crowded_world, hear, item, query, random_world, result

A = [0, 0, 100, 100]
HALF = [0, 0, 100, 50]
SHOP = [10, 10, 110, 110]
TRUTH = [query(1, A)], [item(50, SHOP)]


def ranks(results, queries, gallery) -> list[int]:
    hearing = hear(results, queries, gallery)
    outcome = strict.judge(hearing.results, hearing.queries, hearing.gallery)
    assert outcome.score.protocol == "strict"
    return outcome.score.hit_ranks.tolist()


def row(bbox, score, rank=None, cls=1):
    return result(1, bbox, cls=cls, score=score, right={rank: (50, SHOP)} if rank else {})


def test_s1_a_box_of_low_overlap_speaks_for_nobody():
    assert ranks([row(FAR, 0.9, 1)], *TRUTH) == [0]
    assert ranks([row([0, 0, 100, 49.999], 0.9, 1)], *TRUTH) == [0]
    assert ranks([row(HALF, 0.9, 1)], *TRUTH) == [1]  # exactly 0.5 is enough


def test_s1_a_tiny_box_of_high_score_displaces_none():
    assert ranks([row([0, 0, 1, 1], 0.95), row(A, 0.5, 3)], *TRUTH) == [3]


def test_s2_one_box_under_all_categories_has_the_one_of_its_highest_score():
    truth = [query(1, A, cls=9)], [item(50, SHOP)]
    hedged = [row(A, 0.9 - cls / 100, 1, cls) for cls in range(1, 14)]
    assert ranks(hedged, *truth) == [0]
    hedged[8]["query_score"] = 0.91
    assert ranks(hedged, *truth) == [1]


def test_s2_equal_scores_of_one_box_under_several_categories_do_not_help():
    truth = [query(1, A, cls=9)], [item(50, SHOP)]
    assert ranks([row(A, 0.9, 1, cls) for cls in range(1, 14)], *truth) == [0]
    assert ranks([row(A, 0.9, 1, 9)], *truth) == [1]


def test_s2_moving_the_boxes_of_one_garment_does_not_help():
    """13 categories, every two boxes with an IoU below 0.9: that scored all but everything by a rule on equal boxes."""
    truth = [query(1, A, cls=9)], [item(50, SHOP)]
    moved = [row([3 * cls, 0, 100, 100 - 3 * cls], 0.9 - cls / 100, 1, cls) for cls in range(1, 14)]
    near = [one for one in moved if oracle.overlap(one["query_bbox"], A) >= 0.5]
    assert {9, 1} <= {one["query_cls"] for one in near}
    assert ranks(moved, *truth) == [0]
    moved[8]["query_score"] = 0.95
    assert ranks(moved, *truth) == [1]


def test_s2_boxes_of_other_photos_and_items_take_no_part():
    other = result(2, A, cls=2, score=0.99)
    assert ranks([other, row(A, 0.5, 1)], *TRUTH) == [1]


def test_s3_of_equal_scores_the_worst_answer_speaks():
    early, late, miss = row(A, 0.8, 2), row([0, 0, 100, 80], 0.8, 7), row([0, 0, 80, 100], 0.8)
    assert ranks([early, late], *TRUTH) == ranks([late, early], *TRUTH) == [7]
    assert ranks([early, late, miss], *TRUTH) == ranks([miss, late, early], *TRUTH) == [0]


def test_repeated_gallery_entries_keep_their_places():
    repeated = result(1, A, right={**dict.fromkeys(range(1, 10), (60, SHOP)), 10: (50, SHOP)})
    assert ranks([repeated], *TRUTH) == [10]


def test_photos_without_detection_stay_in_the_denominator_and_no_rows_are_no_error():
    queries = [query(1, A), query(2, A), query(3, A, style=0)]
    assert ranks([row(A, 0.9, 1)], queries, TRUTH[1]) == [1, 0]
    assert ranks([], queries, TRUTH[1]) == [0, 0]


def test_files_that_do_not_belong_together_are_refused():
    hearing = hear([], *TRUTH)
    nothing = Gallery(*(column[:0] for column in list(vars(hearing.gallery).values())[:4]))
    with pytest.raises(InputError, match="has no item of pair 1 and style 1"):
        strict.judge(hearing.results, hearing.queries, nothing)


@pytest.mark.parametrize("make_world", [random_world, crowded_world])
def test_agrees_with_the_oracle_whatever_the_order_of_the_rows(make_world):
    differing = 0
    for seed in range(200):
        results, queries, gallery = make_world(seed)
        expected = strict_oracle.strict_ranks(results, queries, gallery)
        assert ranks(results, queries, gallery) == expected, seed
        random.Random(seed).shuffle(results)
        assert ranks(results, queries, gallery) == expected, seed
        differing += expected != oracle.hit_ranks(results, queries, gallery)[0]
    assert differing > 40


COORDINATE = st.integers(0, 12)
ROWS = st.lists(st.tuples(st.integers(1, 2), *(COORDINATE for _ in range(4))), max_size=25)


@example([(1, 0, 0, 12, 12), (1, 1, 0, 12, 12), (1, 0, 0, 11, 12), (2, 0, 0, 12, 12), (1, 0, 1, 12, 12)], 7.3)
@given(ROWS, st.sampled_from([1.0, 0.1, 7.3]))
def test_same_boxes_finds_every_pair(rows, unit):
    """Boxes on a fine grid, empty and inverted ones among them; 12 against 11 cells is 0.917."""
    image_ids = np.array([photo for photo, *_ in rows], np.int64)
    boxes = np.array([box for _, *box in rows], float).reshape(-1, 4) * unit
    first, second = same_boxes(image_ids, boxes)
    found = {tuple(sorted(pair)) for pair in zip(first.tolist(), second.tolist(), strict=True)}
    assert len(found) == len(first)
    assert found == {
        (a, b)
        for b in range(len(rows))
        for a in range(b)
        if image_ids[a] == image_ids[b] and oracle.overlap(boxes[a].tolist(), boxes[b].tolist()) >= 0.9
    }


def differences(results, queries, gallery, k=10) -> Differences:
    hearing = hear(results, queries, gallery)
    speakers = strict.speakers(hearing)
    return compare(hearing, speakers, official.decide(hearing), strict.decide(hearing, speakers), k)


@pytest.mark.parametrize(
    ("rows", "reason", "lost", "gained"),
    [
        ([row(FAR, 0.9, 1)], Reason.LOW_OVERLAP, 1, 0),
        ([row([0, 0, 1, 1], 0.9), row(A, 0.5, 3)], Reason.LOW_OVERLAP, 0, 1),
        ([row(A, 0.9, 1), row(A, 0.95, cls=2)], Reason.OTHER_CATEGORY, 1, 0),
        ([row(A, 0.9, 1), row([0, 0, 80, 90], 0.95, cls=2)], Reason.OTHER_CATEGORY, 1, 0),
        ([row(A, 0.9, 1), row(A, 0.9)], Reason.EQUAL_SCORES, 1, 0),
        ([row(A, 0.9, 1), row([0, 0, 80, 100], 0.9)], Reason.EQUAL_SCORES, 1, 0),
        ([row(A, 0.9, 1), row(A, 0.9, 1, cls=2)], Reason.EQUAL_SCORES, 1, 0),
    ],
)
def test_every_difference_has_its_reason(rows, reason, lost, gained):
    found = differences([*rows, result(9, A, score=0.01)], *TRUTH)
    assert {one: (found.lost[one], found.gained[one]) for one in Reason} == {
        one: (lost, gained) if one is reason else (0, 0) for one in Reason
    }
    said = found.sentences()
    assert said[0] == f"Hits within the first 10 that are lost by the strict rules: {lost}; gained: {gained}"
    assert len(said) == 2
    assert said[1].startswith("  1 lost:" if lost else "  1 gained:")


def test_differences_within_k():
    rows = [row(A, 0.9, 11), row(A, 0.95, cls=2)]
    assert differences(rows, *TRUTH, k=20).lost[Reason.OTHER_CATEGORY] == 1
    found = differences(rows, *TRUTH, k=10)
    assert found.sentences() == ["Both protocols agree on every query within the first 10."]


def test_differences_account_for_every_query():
    num_lost = num_gained = 0
    for seed in range(200):
        world = crowded_world(seed)
        hearing = hear(*world)
        speakers = strict.speakers(hearing)
        first, second = official.decide(hearing), strict.decide(hearing, speakers)
        for k in (10, 20):
            found = compare(hearing, speakers, first, second, k)
            hits = [(o.score.hit_ranks > 0) & (o.score.hit_ranks <= k) for o in (first, second)]
            assert sum(found.lost.values()) == (hits[0] & ~hits[1]).sum()
            assert sum(found.gained.values()) == (hits[1] & ~hits[0]).sum()
            num_lost += sum(found.lost.values())
            num_gained += sum(found.gained.values())
    assert num_lost > 50
    assert num_gained >= 3


def test_boxes_without_end_on_top_of_each_other_are_refused_in_bounded_memory():
    """8,000 times the same box took 20 s and 3 GB."""
    box = np.array([[10.0, 10, 50, 90]])
    with pytest.raises(InputError, match="photo 7: has thousands of boxes on top of each other"):
        same_boxes(np.full(8000, 7), np.repeat(box, 8000, axis=0))
    stacked = np.repeat(box, 400, axis=0)
    first, second = same_boxes(np.full(400, 7), stacked)
    assert len(first) == 400 * 399 // 2
    assert (first != second).all()
