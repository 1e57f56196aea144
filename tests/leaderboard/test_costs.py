from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaderboard.costs import cost, hardware_label, pareto, part_of
from leaderboard.rows import StageRecord
from leaderboard.standings import sections
from tests.leaderboard.samples import sample, with_hits


def timed(hits: int, seconds: float | None, cpu: str = "some"):
    stages = () if seconds is None else (StageRecord("embed", seconds),)
    name = f"{hits} in {seconds} on {cpu}"
    return with_hits(name, hits, stages=stages, hardware={"cpu": cpu, "cores": 2})


def entries(*rows):
    return [entry for section in sections(rows, tell_apart=False) for entry in section.ranked]


@pytest.mark.parametrize(
    ("hardware", "label"),
    [
        ({"cpu": "AMD EPYC", "cores": 2, "gpus": []}, "AMD EPYC, 2 cores"),
        ({"cpu": "Intel(R) Xeon(R) Platinum 8488C", "cores": 1}, "Intel Xeon Platinum 8488C, 1 core"),
        ({"cpu": "Intel(R) Xeon(R) CPU @ 2.20GHz", "cores": 4}, "Intel Xeon, 4 cores"),
        ({"cpu": "AMD EPYC 7B13 64-Core Processor", "cores": 4}, "AMD EPYC 7B13, 4 cores"),
        ({"cpu": "CPU"}, "CPU"),
        ({"cpu": "AMD", "cores": 8, "gpus": ["NVIDIA L4", "NVIDIA L4"]}, "2 × NVIDIA L4, 8 cores"),
        ({"gpus": ["NVIDIA L4", "NVIDIA T4"], "cores": 8}, "NVIDIA L4, NVIDIA T4, 8 cores"),
        ({"gpu": "NVIDIA L4"}, "NVIDIA L4"),
        ({"cpu": None, "cores": None, "gpus": None}, "unknown hardware"),
        ({"gpus": 7}, "unknown hardware"),
    ],
)
def test_machines_in_a_few_words(hardware, label):
    assert hardware_label(hardware) == label


def test_costs():
    row = timed(50, 60.0)  # of 100 queries
    assert (cost(row), cost(row, "per 1,000 queries")) == (60, 600)
    assert cost(timed(50, None), "per 1,000 queries") is None
    with pytest.raises(ValueError, match="cost: expected one of total, per 1,000 queries, got 'euros'"):
        cost(row, "euros")
    (entry,) = entries(row)
    assert (entry.total_seconds, entry.seconds_per_1000, entry.hardware_label) == (60, 600, "some, 2 cores")


def test_the_front_is_of_one_machine_each():
    found = entries(
        timed(90, 50), timed(80, 60), timed(70, 10), timed(60, 10), timed(50, 5), timed(40, 1, "other"), timed(99, None)
    )
    names = {machine: [found[place].row.name for place in front] for machine, front in pareto(found).items()}
    assert names == {
        "some, 2 cores": ["50 in 5 on some", "70 in 10 on some", "90 in 50 on some"],
        "other, 2 cores": ["40 in 1 on other"],
    }
    assert pareto([]) == {}


def test_equals_stand_on_the_front_together():
    found = entries(timed(70, 10), replace(timed(70, 10), name="again", spec="other"), timed(70, 11))
    assert {machine: len(front) for machine, front in pareto(found).items()} == {"some, 2 cores": 2}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_the_front_is_what_nobody_beats(points):
    found = entries(
        *(
            sample(f"{n}", [1] * hits + [0] * (5 - hits), spec=f"{n}", stages=(StageRecord("embed", seconds),))
            for n, (hits, seconds) in enumerate(points)
        )
    )
    at = [(entry.total_seconds, entry.row.score.acc[10]) for entry in found]
    unbeaten = {
        place
        for place, (cost_here, acc) in enumerate(at)
        if not any(s <= cost_here and a >= acc and (s, a) != (cost_here, acc) for s, a in at)
    }
    (front,) = pareto(found).values()
    assert set(front) == unbeaten
    assert [at[place] for place in front] == sorted(at[place] for place in front)


def test_stages_are_parts_of_the_flow():
    stages = [
        "decode",
        "detect ATSS",
        "fuse WBF_5",
        "decode and crop",
        "embed m4",
        "search",
        "fit whiten",
        "rerank(k1=9)",
    ]
    assert [part_of(stage) for stage in stages] == [
        "decode", "detect", "fuse", "decode", "embed", "search", "steps", "steps",
    ]  # fmt: skip
    assert part_of("write JSON") == "write"
    assert part_of("score") == "score"


def test_the_bar_of_a_row_adds_up_the_stages_of_a_part():
    stages = [StageRecord(name, seconds) for name, seconds in (("detect a", 1), ("detect b", 2), ("pca(8)", 1))]
    (section,) = sections([sample(stages=tuple(stages))])
    assert [(bar.stage, bar.seconds, bar.share) for bar in section.ranked[0].bars] == [
        ("detect", "3.0 s", 75.0),
        ("steps", "1.0 s", 25.0),
    ]
    assert section.stages == (("detect", 1), ("steps", 5))
