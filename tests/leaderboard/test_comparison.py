import pytest

from harness.types import InputError
from leaderboard.comparison import compare
from leaderboard.rows import StageRecord
from leaderboard.standings import duration, sections
from tests.leaderboard.samples import sample, with_hits


def test_a_clear_difference():
    result = compare(with_hits("weak", 60), with_hits("strong", 80))
    assert (result.first_acc, result.second_acc, result.num_queries) == (0.6, 0.8, 100)
    assert result.difference == pytest.approx(0.2)
    assert (result.test.only_first, result.test.only_second) == (0, 20)
    assert result.test.p_value == pytest.approx(2 / 2**20)
    assert 0.1 < result.interval[0] < 0.2 < result.interval[1] < 0.3
    assert result.verdict.startswith("RENDERED data: strong beats weak at Acc@10")
    turned = compare(with_hits("strong", 80), with_hits("weak", 60))
    assert turned.verdict.startswith("RENDERED data: strong beats weak")


def test_no_difference():
    result = compare(with_hits("one", 60), with_hits("other", 60, first_miss=3))
    assert result.difference == 0
    assert (result.test.only_first, result.test.only_second, result.test.p_value) == (3, 3, 1)
    assert "not distinguishable" in result.verdict


def test_k_is_respected():
    first, second = sample(ranks=[6, 1, 1]), sample(ranks=[1, 1, 1])
    assert compare(first, second, k=5).test.only_second == 1
    assert compare(first, second, k=10).test.only_second == 0
    with pytest.raises(InputError, match="k: expected one of 1, 5, 10, 15, 20, got 7"):
        compare(first, second, k=7)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"fingerprint": "0" * 64}, "their data differs"),
        ({"split": "test"}, "their split differs"),
        ({"protocol": "strict"}, "their protocol differs"),
        ({"ranks": [1, 2, 3]}, "their number of queries differs"),
    ],
)
def test_rows_of_other_questions_are_refused(changes, what):
    with pytest.raises(InputError, match=what):
        compare(sample("one"), sample("other", **changes))


def test_standings_rank_by_accuracy_and_keep_apart_what_does_not_count():
    rows = [
        with_hits("low", 50),
        with_hits("saw", 99, contamination="m7 was trained on validation"),
        with_hits("top", 80),
        with_hits("equal", 50, first_miss=5),
        with_hits("hedges", 95, hedged=True),
    ]
    (section,) = sections(rows)
    assert (section.ranked[0].row.name, section.ranked[0].rank) == ("top", 1)
    assert {(entry.row.name, entry.rank) for entry in section.ranked[1:]} == {("low", 2), ("equal", 2)}
    assert [(entry.row.name, entry.rank) for entry in section.apart] == [("saw", None), ("hedges", None)]
    assert section.apart[0].reasons == ("Contaminated: m7 was trained on validation",)
    assert [entry.versus_best for entry in section.ranked] == ["best", "worse", "worse"]
    low, high = section.axis
    assert all(low <= entry.low <= entry.high <= high for entry in (*section.ranked, *section.apart))
    assert (section.place(low), section.place(high)) == (0, 100)


def test_standings_never_mix_data_splits_or_protocols():
    rows = [
        sample("a"),
        sample("b", fingerprint="0" * 64),
        sample("c", split="test"),
        sample("d", protocol="strict"),
        sample("e", rendered=False),
        sample("f"),
    ]
    groups = [sorted(entry.row.name for entry in section.ranked) for section in sections(rows)]
    assert groups[0] == ["e"]
    assert sorted(groups[1:]) == [["a", "f"], ["b"], ["c"], ["d"]]
    assert sections([]) == []


def test_stage_bars_share_one_scale():
    rows = [
        sample("a", stages=(StageRecord("detect", 30.0), StageRecord("embed", 10.0))),
        sample("b", stages=(StageRecord("detect", 20.0),)),
    ]
    (section,) = sections([*rows, sample("c", stages=())])
    bars = {entry.row.name: [(bar.stage, bar.share, bar.colour) for bar in entry.bars] for entry in section.ranked}
    assert bars == {"a": [("detect", 75.0, 1), ("embed", 25.0, 3)], "b": [("detect", 50.0, 1)], "c": []}
    assert {entry.row.name: entry.total for entry in section.ranked} == {"a": "40 s", "b": "20 s", "c": "–"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (0.994, "0.99 s"),
        (0.999, "1.0 s"),
        (9.96, "10 s"),
        (59.7, "1 min 00 s"),
        (3599.7, "1 h 00 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
