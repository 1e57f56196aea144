import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.scoring.questions import Questions
from harness.scoring.significance import mcnemar_exact
from harness.types import RANKS, InputError
from leaderboard.comparison import SMALL_SLICE, compare, side_by_side
from leaderboard.rows import Losses
from tests.leaderboard.samples import sample

HIT, NO_DETECTION, BELOW = 0, 1, 6


def questions(categories: list[int], **attributes: list[int]) -> Questions:
    count = len(categories)
    columns = {name: np.array(values) for name, values in attributes.items()}
    return Questions(np.arange(count), np.array(categories), np.ones(count, np.int64), columns)


def losses(*fates: int, untold: tuple[str, ...] = ()) -> Losses:
    return Losses(np.array(fates, np.uint8), untold)


def test_who_is_right_where():
    found = side_by_side(sample("one", [1, 0, 12, 1, 0]), sample("two", [1, 10, 1, 0, 0]))
    assert (found.both_right().tolist(), found.neither_right().tolist()) == ([0], [4])
    assert (found.only_first().tolist(), found.only_second().tolist()) == ([3], [1, 2])
    assert (found.only_first(1).tolist(), found.only_second(1).tolist()) == ([3], [2])
    assert found.only_second(20).tolist() == [1]
    assert list(found.by_k) == list(RANKS)
    assert (found.by_k[10].test.only_first, found.by_k[10].test.only_second) == (1, 2)


def test_slices_are_compared_pair_by_pair():
    first, second = sample("one", [1, 0, 0, 1]), sample("two", [1, 6, 3, 0])
    found = side_by_side(first, second, questions([1, 1, 2, 2], scale=[1, 3, 3, 0]))
    slices = {(one.group, one.name): one for one in found.slices}
    assert list(slices) == [
        ("category", "short sleeve top"),
        ("category", "long sleeve top"),
        ("scale", "small"),
        ("scale", "large"),
        ("scale", "not annotated"),
        ("counterparts", "1"),
    ]
    tops = slices["category", "short sleeve top"]
    assert (tops.num_queries, tops.first.acc[10], tops.second.acc[10], tops.is_small) == (2, 0.5, 1.0, True)
    assert (tops.differences[5], tops.differences[10]) == (0, 0.5)
    assert (tops.tests[10].only_first, tops.tests[10].only_second, tops.tests[10].p_value) == (0, 1, 1)
    long = slices["category", "long sleeve top"]
    assert (long.differences[10], long.tests[10].only_first, long.tests[10].only_second) == (0, 1, 1)
    assert any("fewer than 100 queries" in note for note in found.notes)
    assert any("6 slices are each tested alone" in note for note in found.notes)


@pytest.mark.parametrize(("count", "small"), [(SMALL_SLICE - 1, True), (SMALL_SLICE, False)])
def test_small_slices_are_marked(count, small):
    row = sample(ranks=[1] * count)
    assert {one.is_small for one in side_by_side(row, row, questions([1] * count)).slices} == {small}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 13)), min_size=1, max_size=60))
def test_slices_of_a_kind_add_up(queries):
    first, second, categories = (list(column) for column in zip(*queries, strict=True))
    rows = sample("one", first), sample("two", second)
    found = side_by_side(*rows, questions(categories))
    for k in RANKS:
        whole = mcnemar_exact(rows[0].hits(k), rows[1].hits(k))
        by_category = [one for one in found.slices if one.group == "category"]
        assert sum(one.num_queries for one in by_category) == len(queries)
        assert sum(one.tests[k].only_first for one in by_category) == whole.only_first == len(found.only_first(k))
        assert sum(one.tests[k].only_second for one in by_category) == whole.only_second == len(found.only_second(k))
        gained = sum(one.differences[k] * one.num_queries for one in by_category)
        assert gained == pytest.approx(whole.only_second - whole.only_first)


def test_losses_from_row_to_row():
    first = sample("one", [1, 0, 0], losses=losses(HIT, NO_DETECTION, BELOW))
    second = sample("two", [1, 2, 0], losses=losses(HIT, HIT, BELOW))
    table = side_by_side(first, second).transitions
    assert table.counts[NO_DETECTION] == (1, 0, 0, 0, 0, 0, 0)
    assert (table.counts[HIT][HIT], table.counts[BELOW][BELOW]) == (1, 1)
    assert sum(sum(line) for line in table.counts) == 3
    assert (table.fates[0], table.first_totals["no detection"], table.second_totals["hit"]) == ("hit", 1, 2)


def test_fates_that_a_row_cannot_tell_are_blank_in_both():
    first = sample("one", [1, 0], losses=losses(HIT, BELOW, untold=("displaced",)))
    second = sample("two", [1, 0], losses=losses(HIT, BELOW, untold=("not in gallery",)))
    found = side_by_side(first, second)
    displaced, not_in_gallery = 3, 4
    assert found.transitions.counts[displaced] == (None,) * 7
    assert [line[not_in_gallery] for line in found.transitions.counts] == [None] * 7
    assert found.transitions.counts[not_in_gallery][HIT] == 0
    assert found.transitions.first_totals["displaced"] is None
    assert found.transitions.second_totals["displaced"] == 0
    assert any(note.startswith("two could not tell not in gallery") for note in found.notes)


def test_what_is_missing_is_said():
    found = side_by_side(sample("one", losses=losses(*[0] * 10)), sample("two"))
    assert (found.slices, found.transitions) == (None, None)
    assert any("was not kept" in note for note in found.notes)
    assert "Without a loss ledger: two; score again for one." in found.notes


def test_rows_that_do_not_count_and_other_boxes_are_named():
    first = sample("one", hedged=True, contamination="m7 was trained on validation", spec="m7 + GT")
    notes = side_by_side(first, sample("two", spec="m4 + WBF_5")).notes
    assert notes[:2] == ("one does not count: m7 was trained on validation.", "one does not count: class hedging.")
    assert notes[2].startswith("one has ground-truth boxes, two detected ones")


def test_other_queries_are_refused():
    ours, others = questions([1, 2]), questions([2, 2])
    first = sample("one", [1, 0], questions_id=ours.id)
    with pytest.raises(InputError, match="one and two cannot be compared: their queries differ"):
        compare(first, sample("two", [1, 0], questions_id=others.id))
    assert compare(first, sample("old", [1, 0])).num_queries == 2
    with pytest.raises(InputError, match=r"one: is a score of 2 queries .*, but 2 others were given"):
        side_by_side(first, sample("two", [1, 0]), others)
    with pytest.raises(InputError, match=r"one: is a score of 10 queries \(not named\), but 2 others were given"):
        side_by_side(sample("one"), sample("two"), ours)
    with pytest.raises(InputError, match="their data differs"):
        side_by_side(first, sample("two", [1, 0], fingerprint="0"))


def test_everything_goes_into_json():
    first = sample("one", [1, 0], losses=losses(HIT, BELOW))
    second = sample("two", [1, 4], losses=losses(HIT, HIT))
    told = json.loads(json.dumps(side_by_side(first, second, questions([1, 2])).as_json()))
    assert (told["first"], told["second"], told["only_first"], told["only_second"]) == (first.id, second.id, [], [1])
    assert told["by_k"]["10"]["test"]["only_second"] == 1
    assert told["slices"][1]["differences"]["5"] == 1
    assert told["transitions"]["counts"][BELOW][HIT] == 1
    assert json.dumps(side_by_side(sample("a"), sample("b")).as_json())
