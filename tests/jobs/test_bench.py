"""Timings of the stages: over a small rendered set, with models that are hardly trained, and with none at all."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from harness.data.deepfashion2 import read_split
from harness.jobs.bench import attach, board_of, device_of, part_of, sample_of
from harness.jobs.bench_kernels import read_kernels, run_kernels
from harness.jobs.bench_settings import BenchResult, every
from harness.timing import Measurement
from harness.types import InputError
from harness.workplace import Workplace
from leaderboard.store import Board
from tests.commands import call, ok, refused

PLAIN = "histogram + GT"
QUICK = ("--photos", 12, "--repeats", 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "data"
    ok("data", "render", folder, "--train", 24, "--validation", 40, "--test", 16, "--workers", 1)
    return folder


@pytest.fixture(scope="module")
def work(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    place = ("--data", data, "--work", folder, "--scale", "tiny", "--steps", 1)
    for name in ("ATSS", "CascadeMaskRCNN"):
        ok("train", "detector", name, *place)
    for name in ("m0", "m9"):
        ok("train", "retriever", name, *place, "--deepfashion2-only")
    return folder


@pytest.fixture(scope="module")
def split(data: Path):
    return read_split(data, "validation")


def by_stage(told: dict) -> dict[str, dict]:
    return {one["stage"]: one for one in told["stages"]}


def test_every_stage_of_an_ensemble_is_timed_beside_its_baseline(data: Path, work: Path, tmp_path: Path) -> None:
    spec, out = "m0,m9*0.5 with WBF_2 | whiten(8) | qe(2) | dba(2) | rerank(k1=4,k2=2)", tmp_path / "bench.json"
    before = {path for path in work.rglob("*") if path.is_file()}
    told = json.loads(ok("bench", spec, "--data", data, "--work", work, *QUICK, "--out", out, "--json"))
    assert json.loads(out.read_text()) == told
    assert {path for path in work.rglob("*") if path.is_file()} == before, "nothing but timings is kept"
    assert (told["rendered"], told["split"], told["num_photos"], told["row"]) == (True, "validation", 12, None)
    assert told["spec"] == "m0,m9*0.5 + WBF_2 | whiten(8) | qe(2) | dba(2) | rerank(k1=4,k2=2,lambda=0.3)"
    assert told["hardware"]["cores"] >= 1
    stages = by_stage(told)
    with_baseline = [
        "decode", "detect ATSS", "detect CascadeMaskRCNN", "fuse WBF_2", "crop to 64 x 64, margin 0.05", "embed m0",
        "embed m9", "search", "fit whiten(8)", "whiten(8)", "qe(2)", "dba(2)", "rerank(k1=4,k2=2,lambda=0.3)",
        "write JSON", "score",
    ]  # fmt: skip
    without = ["load ATSS", "load CascadeMaskRCNN", "load m0", "load m9"]
    ends = ["end to end, cold store", "end to end, warm store"]
    assert set(stages) == {*with_baseline, *without, *ends}
    assert list(stages)[:4] == without
    assert list(stages)[-2:] == ends
    for name, one in stages.items():
        assert one["count"] >= 1
        assert 0 < one["median_s"] <= one["p95_s"] <= one["p99_s"]
        assert one["per_second"] == pytest.approx(one["count"] / one["median_s"])
        assert one["peak_host_gib"] > 0
        assert (one["baseline"] is not None) == (name in with_baseline), name
        Measurement.from_json(one)
    assert stages["detect ATSS"]["count"] == stages["decode"]["count"] == 12
    assert stages["detect ATSS"]["precision"] == "32"
    assert stages["search"]["count"] == told["sizes"]["queries"]
    assert told["sizes"]["of"] == "the sample"
    assert told["sizes"]["models"] == 2
    found = told["end_to_end"]
    assert found["cold_s"] == stages["end to end, cold store"]["median_s"] > found["warm_s"] > 0
    assert found["model_loading_s"] == pytest.approx(sum(stages[name]["median_s"] for name in without))
    cold = {one["stage"]: one["seconds"] for one in found["cold_stages"]}
    assert min(cold[name] for name in ("embed m0", "embed m9", "score")) > 0


def test_search_is_timed_with_the_features_of_the_whole_split_where_they_are_there(data: Path, tmp_path: Path) -> None:
    place = ("--data", data, "--work", tmp_path / "work")
    ok("embed", PLAIN, *place)
    told = json.loads(ok("bench", PLAIN, *place, *QUICK, "--queries", 3, "--stage", "search", "--json"))
    split = read_split(data, "validation")
    assert told["sizes"]["of"] == "all of validation"
    assert told["sizes"]["gallery"] == int((~split.items.is_consumer).sum())
    assert told["sizes"]["queries"] == told["stages"][0]["count"] == 3
    assert [one["stage"] for one in told["stages"]] == ["search"]
    assert told["end_to_end"] is None


def test_timings_go_to_the_latest_row_of_the_ensemble(data: Path, tmp_path: Path) -> None:
    place = ("--data", data, "--work", tmp_path / "work")
    arguments = ("bench", PLAIN, *place, *QUICK, "--stage", "write", "--no-baselines")
    assert "is not there yet; run.py score adds one" in ok(*arguments)
    other = json.loads(ok("score", "histogram*0.5 + GT | same_category", *place, "--json"))["row"]
    assert "has no row of this ensemble on these photos" in ok(*arguments)
    row = json.loads(ok("score", PLAIN, *place, "--json"))["row"]
    shown = ok(*arguments)
    assert f"kept with row {row[:12]}" in shown
    assert "RENDERED photos, no timings of DeepFashion2" in shown
    assert max(map(len, shown.split("\n\n")[1].splitlines())) <= 80
    board = Board(tmp_path / "work" / "leaderboard.sqlite", create=False)
    (run,) = board.timings(row)
    assert board.timings(other) == []
    board.close()
    assert [one["stage"] for one in run.result["stages"]] == ["write JSON"]
    assert run.result["stages"][0]["baseline"] is None
    assert run.result["row"] == row


def test_a_file_that_is_no_board_is_refused_before_anything_is_timed(data: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "leaderboard.sqlite").write_text("no board")
    monkeypatch.setattr("harness.jobs.bench.bench", lambda *_: pytest.fail("timed"))
    assert "leaderboard" in refused("bench", PLAIN, "--data", data, "--work", tmp_path, *QUICK)


def test_the_latest_of_several_rows_is_taken(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    from tests.leaderboard.samples import sample

    path = tmp_path / "leaderboard.sqlite"
    board = Board(path)
    days = {
        day: sample(spec=PLAIN, code_version=f"day {day}", created=datetime(2026, 1, day, tzinfo=UTC))
        for day in (5, 9, 7)
    }
    ids = {day: board.add(row) for day, row in days.items()}
    board.close()
    result = BenchResult(PLAIN, "validation", "f" * 64, True, 2, "cpu", [Measurement("s", "t", 1, (1.0,))], {}, "1")
    assert attach(board_of(Workplace(tmp_path)), result).row_id == ids[9]
    elsewhere = dataclasses.replace(result, fingerprint="e" * 64)
    assert attach(board_of(Workplace(tmp_path)), elsewhere).row_id is None
    assert attach(None, result) == result


def test_the_test_split_is_timed_without_its_truth(data: Path, tmp_path: Path, work: Path) -> None:
    place = ("--data", data, "--work", work, "--split", "test")
    stages = ("--stage", "write", "--stage", "score", "--stage", "end-to-end")
    told = json.loads(ok("bench", "m0 with ATSS", *place, *QUICK, *stages, "--json"))
    assert [one["stage"] for one in told["stages"]] == [
        "write JSON",
        "end to end, cold store",
        "end to end, warm store",
    ]


def test_less_than_single_precision_is_timed_beside_single_precision(data: Path, work: Path) -> None:
    place = ("--data", data, "--work", work)
    told = json.loads(ok("bench", "m0 + GT", *place, *QUICK, "--precision", "bf16", "--stage", "embed", "--json"))
    (one,) = told["stages"]
    assert (one["precision"], one["baseline"]["stage"]) == ("bf16", "in 32 bits")


def test_a_sample_has_pairs_and_both_kinds_of_photos(split) -> None:
    for wanted in (2, 5, 12, 1000):
        ids = sample_of(split, wanted)
        assert len(ids) == min(wanted, len(split.photos))
        assert (np.diff(ids) > 0).all()
        assert (ids == sample_of(split, wanted)).all()
        some = part_of(split, ids)
        assert set(some.items.image_ids) <= set(ids.tolist())
        assert some.fingerprint == split.fingerprint
        consumer, shop = (
            set(zip(some.items.pair_ids[side].tolist(), some.items.styles[side].tolist(), strict=True))
            for side in (some.items.is_consumer, ~some.items.is_consumer)
        )
        assert {style for _, style in consumer & shop} - {0}, "something can be found"
    without = dataclasses.replace(split, items=None)
    ids = sample_of(without, 10)
    assert split.photos.consumer_mask(ids).sum() == 5
    alone = part_of(split, split.photos.image_ids[split.photos.is_consumer])
    with pytest.raises(InputError, match="has no shop photo"):
        sample_of(alone, 4)


def test_what_cannot_be_timed_is_refused(data: Path, work: Path) -> None:
    place = ("--data", data, "--work", work)
    assert "--stage walk: there is none of this name; there are load, decode" in refused(
        "bench", PLAIN, *place, "--stage", "walk"
    )
    assert "m4 not trained here" in refused("bench", "m4 + GT", *place)
    assert "has none of the stages fuse" in refused("bench", PLAIN, *place, *QUICK, "--stage", "fuse")
    assert "leave it out, or --devices" in refused("bench", PLAIN, *place, "--device", "cpu", "--devices", 2)
    assert "expected cpu, cuda or cuda:0" in refused("bench", PLAIN, *place, "--device", "abacus")
    for arguments, says in (
        ((), "which ensemble?"),
        ((PLAIN,), "which data set?"),
        ((PLAIN, *place, "--only", "x"), "is of --kernels"),
    ):
        result = call("bench", *arguments)
        assert result.exit_code == 2
        assert says in result.stderr


def test_devices_are_named_as_torch_names_them() -> None:
    import torch

    count = torch.cuda.device_count()
    assert device_of("cpu") == "cpu"
    assert device_of(None) == ("cuda:0" if count else "cpu")
    with pytest.raises(InputError, match=f"this machine has {count} GPUs"):
        device_of(f"cuda:{count}")


def test_rows_are_spread_evenly() -> None:
    assert every(3, 5) == [0, 1, 2]
    assert every(10, 4) == [0, 2, 5, 7]
    assert every(0, 4) == []


# --- kernels --------------------------------------------------------------------------------------


def entry(name: str, group: str | None, *seconds: float, **extra) -> dict:
    stats = {"median": float(np.median(seconds)), "data": list(seconds)}
    return {"name": name, "group": group, "stats": stats, "extra_info": extra}


def test_kernels_stand_beside_the_baseline_of_their_group_and_parameters() -> None:
    found = read_kernels(
        {
            "benchmarks": [
                entry("test_ours[8]", "search", 1.0, 2.0, 9.0),
                entry("test_ours[9]", "search", 1.0),
                entry("test_baseline[8]", "search", 4.0),
                entry("test_baseline[9]", "search", 3.0),
                entry("test_many", "fuse", 2.0, things=400),
                entry("test_other", "fuse", 2.0, things=None),
                entry("test_baseline_few", "fuse", 1.0, things=20),
                entry("test_alone", None, 1.0),
            ]
        }
    )
    assert [(one.name, one.ratio, one.is_baseline) for one in found] == [
        ("test_ours[8]", 2.0, False),
        ("test_ours[9]", 3.0, False),
        ("test_baseline[8]", None, True),
        ("test_baseline[9]", None, True),
        ("test_many", pytest.approx(10.0), False),
        ("test_other", None, False),
        ("test_baseline_few", None, True),
        ("test_alone", None, False),
    ]
    first = found[0]
    assert (first.median_s, first.p95_s, first.p99_s, first.num_samples) == (2.0, 9.0, 9.0, 3)
    with pytest.raises(ValueError, match="KeyError"):
        read_kernels({"benchmarks": [{"name": "half"}]})


@pytest.mark.slow
def test_kernels_are_run_from_the_checkout(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "kernels.json"
    found = run_kernels("test_write_submission or test_baseline_json_dump", out)
    assert {one.name for one in found} == {
        "test_write_submission[r.json]", "test_write_submission[r.zip]", "test_baseline_json_dump"
    }  # fmt: skip
    assert all(one.ratio > 0 for one in found if not one.is_baseline)
    assert len(json.loads(out.read_text())["benchmarks"]) == 3
    with pytest.raises(InputError, match=r"no benchmark of .* has such a name"):
        run_kernels("there_is_no_such_kernel")


def test_without_a_checkout_there_are_no_kernels(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("harness.__file__", str(tmp_path / "harness" / "__init__.py"))
    with pytest.raises(InputError, match="runs the benchmarks of a checkout"):
        run_kernels()
