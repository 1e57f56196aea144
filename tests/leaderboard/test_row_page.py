from dataclasses import replace

import numpy as np
import pytest

from leaderboard.pages.links import pair_path, row_path
from leaderboard.pages.row_page import TIES_SHOWN, facts, row_page
from leaderboard.rows import Losses, Row, StageRecord
from leaderboard.standings import sections
from leaderboard.timing_runs import TimingRun
from tests.leaderboard.boards import questions
from tests.leaderboard.samples import sample, with_hits
from tests.leaderboard.test_pages import Outline


def page(row: Row, *others: Row, **values) -> tuple[str, str]:
    """The HTML of a row's page, and what one reads on it."""
    (section,) = sections([row, *others])
    entry = next(e for e in (*section.ranked, *section.apart) if e.row is row)
    html = row_page(entry, section, **values)
    return html, " ".join(" ".join(Outline(html).text).split())


def test_the_accuracies_have_their_intervals():
    row = with_hits("top", 50)
    _, text = page(row)
    low, high = row.interval(10)
    assert f"0.5000, {low:.4f} to {high:.4f}".replace(", ", " RENDERED Acc@10, ", 1) in text
    assert "Acc@15 0.5000" in text
    assert "RENDERED Computer-made pictures" in text
    assert "RENDERED" not in page(replace(row, rendered=False))[1]


def test_losses_are_counted_and_what_could_not_be_told_is_said():
    fates = np.array([0] * 6 + [1] * 2 + [6] * 2, np.uint8)
    row = sample(ranks=[1] * 6 + [0] * 4, losses=Losses(fates, ("not in gallery",)))
    html, text = page(row)
    assert "hit 6 60.0 %" in text
    assert "no detection 2 20.0 %" in text
    assert "ranked below 20 2 20.0 %" in text
    assert "not in gallery – – could not be told" in text
    assert html.count('<i class="fate-') == 3, "the bar shows those that there are"


def test_slices_are_those_of_the_questions():
    known = questions(40)
    row = with_hits("top", 20, n=40, questions_id=known.id)
    _, text = page(row, questions=known)
    for words in ("Parts of the queries", "short sleeve top", "Zoom-in", "not annotated", "Matching shop items"):
        assert words in text
    assert "Parts of the queries" not in page(row, questions=questions(39))[1], "those of other queries"


def test_stages_cold_and_of_this_run():
    stages = (StageRecord("detect ATSS", 120.0, 0.02, True, 600, "photos"), StageRecord("search", 0.5))
    _, text = page(sample(stages=stages))
    assert "detect ATSS 2 min 00 s 0.02 s yes 600 photos 200 ms" in text
    assert "search 0.50 s – – – –" in text
    assert "All 2 min 00 s" in text


def test_a_stage_that_another_machine_made_says_so():
    stages = (StageRecord("detect ATSS", 120.0, 0.02, True, 600, "photos", "NVIDIA L4, 8 cores"),)
    assert "yes, made on NVIDIA L4, 8 cores" in page(sample(stages=stages))[1]


def test_benchmarks_that_belong_to_it():
    row = sample()
    stage = {"stage": "embed m4", "unit": "crops", "count": 500, "median_s": 0.25, "p95_s": 0.5, "p99_s": None,
             "per_second": 2000.0, "peak_host_gib": 1.5, "energy_j": 12.25, "batch_size": 32, "precision": "bf16",
             "baseline": {"stage": "one by one", "median_s": 0.75, "ratio": 3.0, "samples_s": [0.7, 0.8]}}  # fmt: skip
    result = {"stages": [stage], "end_to_end": {"cold_s": 75.0, "warm_s": 0.5, "model_loading_s": None}}
    _, text = page(row, timings=[TimingRun(row.id, result)])
    assert (
        "embed m4 500 µs 1 ms 2,000 one by one: 750 ms, takes 3 times as long 500 crops 1.50 GiB 12.2 J 32 bf16" in text
    )
    assert "one by one: 750 ms, takes 3 times as long" in text
    assert "From end to end: cold 1 min 15 s, warm 500 ms" in text
    assert "Benchmark" not in page(row)[1]


@pytest.mark.parametrize("result", [{"stages": []}, {"stages": ["nonsense", {}]}, {"stages": [{"baseline": "faiss"}]}])
def test_benchmarks_that_tell_little(result):
    row = sample()
    assert "Benchmark" in page(row, timings=[TimingRun(row.id, result)])[1]


def test_rows_of_earlier_versions_say_what_they_lack():
    html, text = page(sample(stages=()))
    assert "does not say what became of every query; which query was which, and so no slices; the command" in text
    assert "made by an earlier version" in text
    for heading in ("What became of the queries", "Parts of the queries", "Run it again", "Benchmark"):
        assert f">{heading}" not in html


def test_it_says_how_to_run_it_again():
    html, text = page(sample(command="run.py score 'm4 + WBF_5' --data DIR"))
    assert "run.py score 'm4 + WBF_5' --data DIR" in text
    assert 'id="copy" hidden' in html, "the button waits for the script"


def test_rows_that_cannot_be_told_apart_are_named_nearest_first():
    rows = [with_hits(f"r{number}", 50, first_miss=number) for number in range(TIES_SHOWN + 5)]
    html, text = page(rows[0], *rows[1:])
    links = [f'href="../{row_path(row)}"' in html for row in rows[1:]]
    assert sum(links) == TIES_SHOWN
    assert f"and {len(rows) - 1 - TIES_SHOWN} more" in text
    best, worst = with_hits("best", 90), with_hits("worst", 10)
    path = pair_path(best, worst)
    html, text = page(worst, best, compared_path=path)
    assert "can be told from every other row" in text
    assert f'href="../{path}"' in html
    assert "McNemar p" in text
    assert "highest Acc@10" in page(best, worst)[1]


def test_rows_that_do_not_count_say_why():
    _, text = page(with_hits("saw", 99, contamination="m7 was trained on validation", hedged=True), with_hits("b", 50))
    assert "Contaminated: m7 was trained on validation" in text
    assert "Class hedging" in text
    assert "not ranked" in text
    assert "cannot be told" not in text


def test_what_made_it():
    row = sample(
        settings={"WBF_5": "IoU 0.6"}, hardware={"cpu": "some", "gpus": ["A", "B"], "versions": {"torch": "2.11"}}
    )
    _, text = page(row)
    for words in (
        row.id,
        row.fingerprint,
        row.code_version,
        "WBF_5 IoU 0.6",
        "gpus A, B",
        "versions torch 2.11",
        "a" * 64,
    ):
        assert words in text


def test_facts_of_nested_values():
    assert facts({"a_b": None, "c": {"d": 1, "e": {"f": [1, None]}}}) == [("a b", "–"), ("c d", "1"), ("c e f", "1")]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 10**400, True, "x", {}, None])
def test_a_benchmark_of_any_json_value_is_shown(value):
    names = ("count", "median_s", "per_second", "peak_host_gib", "energy_j")
    stage = {"stage": "detect", **dict.fromkeys(names, value), "baseline": {"median_s": value, "ratio": value}}
    row = sample()
    _, text = page(row, timings=[TimingRun(row.id, {"stages": [stage], "end_to_end": {"cold_s": value}})])
    assert "detect" in text
    assert not {"nan", "inf", "True"} & set(text.split())


def test_a_benchmark_on_a_busy_machine_says_so():
    row = sample()
    stage = {"stage": "search", "count": 10, "median_s": 1.0}
    _, text = page(row, timings=[TimingRun(row.id, {"stages": [stage], "load_per_core": 1.25})])
    assert "The machine was busy when this began: 1.2 processes wanted each of its cores." in text
    assert "search 100 ms 10 " in text
    assert "busy" not in page(row, timings=[TimingRun(row.id, {"stages": [stage], "load_per_core": 0.1})])[1]
