from datetime import UTC, datetime

import numpy as np
import pytest

from harness.scoring.significance import mcnemar_exact
from leaderboard.folding import fold, members
from leaderboard.rows import Losses
from leaderboard.standings import sections
from tests.leaderboard.samples import RANKS, sample, with_hits

TOLD = Losses(np.array([0, 1, 0, 0, 0, 0, 6, 0, 0, 0], np.uint8))
HALF_TOLD = Losses(np.array([0, 1, 0, 0, 0, 0, 6, 0, 0, 0], np.uint8), ("not in gallery",))
OTHER = Losses(np.array([0, 2, 0, 0, 0, 0, 6, 0, 0, 0], np.uint8))
ONE = {"spec": "m4 + WBF_5"}


def at(day: int) -> dict[str, datetime]:
    return {"created": datetime(2026, 1, day, tzinfo=UTC)}


def names(rows) -> list[list[str]]:
    return [[row.name for row in group] for group in fold(rows)]


def test_runs_and_names_of_one_result_are_one_entry():
    rows = [
        sample("first", **ONE, **at(1)),
        sample("second", **ONE, **at(3), code_version="2", hardware={"cpu": "other"}),
        sample("first", **ONE, **at(2), code_version="2"),
    ]
    ((section),) = sections(rows)
    (entry,) = section.ranked
    assert [row.created.day for row in entry.runs] == [3, 2, 1]
    assert (entry.row.name, entry.also_known_as, entry.num_runs, entry.variant) == ("second", ("first",), 3, "")


@pytest.mark.parametrize(
    "change",
    [
        {"spec": "m4 + WBF_4"},
        {"ranks": [2, *RANKS[1:]]},
        {"settings": {"ATSS": "mirrored too"}},
        {"artifacts": ("m4:other",)},
        {"protocol": "strict"},
        {"split": "test"},
        {"fingerprint": "0" * 64},
        {"rendered": False},
        {"hedged": True},
        {"contamination": "m4 was trained on validation"},
    ],
)
def test_nothing_is_folded_that_differs(change):
    assert len(fold([sample(**ONE), sample(**{**ONE, **change})])) == 2


def test_answers_for_more_boxes_are_the_same_result():
    made = ("m4:1", "boxes:2", "step 1, qe(5):{}", "search:{}", "submission:{}", "m4 is tiny")
    rows = [sample(artifacts=tuple(key.format(n) for key in made)) for n in range(2)]
    assert len(fold(rows)) == 1
    assert members(rows[0]) == ("m4:1", "boxes:2", "m4 is tiny")


def test_the_row_that_tells_of_all_losses_is_shown():
    full = sample("full", losses=TOLD, spec="a", **at(1))
    half = sample("half", losses=HALF_TOLD, spec="a", **at(2))
    none = sample("none", spec="a", **at(3))
    later = sample("later", losses=TOLD, spec="a", **at(4))
    assert names([none, half, full]) == [["full", "half", "none"]]
    assert names([none, half]) == [["half", "none"]]
    assert names([full, none, later]) == [["later", "full", "none"]]


def test_a_row_of_an_earlier_version_is_a_run_of_the_same_keys():
    made = {"artifacts": ("boxes:" + "a" * 64, "m4:" + "b" * 64), **ONE}
    old = sample("old", **made, **at(1))
    new = sample("new", **made, **at(2), settings={"WBF_5": "IoU 0.6"}, losses=TOLD)
    assert names([old, new]) == [["new", "old"]]
    other = sample("other", **{**made, "artifacts": ("boxes:" + "c" * 64, "m4:" + "b" * 64)}, **at(3))
    assert names([old, new, other]) == [["other"], ["new", "old"]]


def test_other_losses_are_another_result():
    rows = [sample("one", losses=TOLD, **ONE, **at(1)), sample("two", losses=OTHER, **ONE, **at(2))]
    assert names([*rows, sample("silent", **ONE, **at(3))]) == [["two", "silent"], ["one"]]


def test_results_of_one_spec_can_be_told_apart():
    rows = [
        sample(**ONE, **at(1), ranks=[1, 2, 3], artifacts=("m4:" + "a" * 64,)),
        sample(**ONE, **at(2), ranks=[1, 2, 0], artifacts=("m4:" + "b" * 64,), settings={"ATSS": "mirrored too"}),
        sample(**ONE, **at(2), ranks=[1, 0, 0], artifacts=("m4:" + "b" * 64,), settings={"WBF_5": "IoU 0.6"}),
        sample("other", ranks=[0, 0, 0]),
    ]
    (section,) = sections(rows)
    texts = [entry.variant for entry in section.ranked]
    assert texts == [
        "settings not told; 2026-01-01",
        "ATSS: mirrored too; WBF_5: as usual; 2026-01-02",
        "ATSS: as usual; WBF_5: IoU 0.6; 2026-01-02",
        "",
    ]


def test_code_and_day_tell_runs_of_one_spec_apart():
    rows = [sample(**ONE, **at(1), ranks=[1]), sample(**ONE, **at(2), ranks=[0], code_version="0.2")]
    (section,) = sections(rows)
    assert [entry.variant for entry in section.ranked] == ["code 0.1.0+abc; 2026-01-01", "code 0.2; 2026-01-02"]


def test_many_other_models_are_counted():
    keys = [tuple(f"m{n}:{model}" for n in range(5)) for model in "ab"]
    rows = [sample(**ONE, **at(day), ranks=[day - 1], artifacts=made) for day, made in zip((1, 2), keys, strict=True)]
    (section,) = sections(rows)
    assert [entry.variant for entry in section.ranked] == [
        "m0 b; m1 b; 3 more of its models; 2026-01-02",
        "m0 a; m1 a; 3 more of its models; 2026-01-01",
    ]


def test_every_ranked_entry_names_those_it_cannot_be_told_from():
    rows = [with_hits("best", 90), with_hits("near", 88), with_hits("far", 60), with_hits("saw", 99, hedged=True)]
    (section,) = sections(rows)
    assert [entry.tied_with for entry in section.ranked] == [(1,), (0,), ()]
    assert [entry.tied_words for entry in section.ranked] == ["1 other: #2", "1 other: #1", "no other"]
    assert [(entry.tied_with, entry.tied_words) for entry in section.apart] == [(None, "")]
    for place, entry in enumerate(section.ranked):
        for other, against in enumerate(section.ranked):
            p_value = mcnemar_exact(entry.row.hits(), against.row.hits()).p_value
            assert (other in entry.tied_with) == (p_value >= 0.05 and other != place)
    (quick,) = sections(rows, tell_apart=False)
    assert [entry.tied_with for entry in quick.ranked] == [None] * 3


def test_rows_that_count_other_queries_are_not_ranked_together():
    found = sections([sample("a", [1, 0]), sample("b", [1, 0, 0])])
    assert [[entry.row.name for entry in section.ranked] for section in found] == [["a"], ["b"]]


def test_equals_share_a_rank_and_the_next_one_skips():
    rows = [with_hits("a", 80), with_hits("b", 80, first_miss=1), with_hits("c", 70)]
    (section,) = sections(rows)
    assert [entry.rank for entry in section.ranked] == [1, 1, 3]


def test_a_section_without_ranked_rows():
    (section,) = sections([sample(hedged=True)])
    assert (section.ranked, len(section.apart)) == ((), 1)


def test_rows_that_name_other_queries_are_not_ranked_together():
    one, same, other, nameless = (
        sample("one", **ONE, questions_id="1" * 64),
        sample("same", spec="m5 + WBF_5", questions_id="1" * 64),
        sample("other", spec="m6 + WBF_5", questions_id="2" * 64),
        sample("nameless", spec="m7 + WBF_5"),
    )

    def found(*rows):
        return [sorted(entry.row.name for entry in section.ranked) for section in sections(rows)]

    assert found(one, same, nameless) == [["nameless", "one", "same"]], "rows of earlier versions name none"
    assert found(one, same, other) == [["one", "same"], ["other"]]
    assert sorted(found(one, other, nameless)) == [["nameless"], ["one"], ["other"]]
