"""Measurements of known work: sleeps and matrix products, percentiles, memory, energy, and what JSON keeps of them."""

import json
import statistics
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.timing import Baseline, Measurement, MemoryWatch, energy_counters, measure, percentile
from harness.timing.measuring import LEAST_SAMPLES, MOST_SAMPLES

ROOT = Path(__file__).parents[1]


class Recorded:
    """Work that keeps its own record of how long each call took, so that what else the machine does is in both."""

    def __init__(self, work):
        self.work, self.seconds = work, []

    def __call__(self) -> None:
        began = time.perf_counter_ns()
        self.work()
        self.seconds.append((time.perf_counter_ns() - began) / 1e9)


def test_a_known_sleep_comes_out_right() -> None:
    nap = Recorded(lambda: time.sleep(0.03))
    found = measure(nap, stage="nap", unit="naps", count=3, repeats=7, warmup=2, counters=[])
    own = nap.seconds[2:]
    assert len(found.samples_s) == len(own) == 7
    np.testing.assert_allclose(found.samples_s, own, rtol=0.05)
    assert found.median_s == pytest.approx(statistics.median(own), rel=0.05)
    assert found.p99_s == max(found.samples_s) >= found.p95_s >= found.median_s >= 0.03
    assert found.per_second == pytest.approx(3 / found.median_s)


def test_a_known_matrix_product_comes_out_right() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, 600, 600))
    product = Recorded(lambda: left @ right)
    found = measure(product, stage="product", unit="products", count=1, repeats=9, counters=[])
    np.testing.assert_allclose(found.samples_s, product.seconds[1:], rtol=0.05, atol=1e-4)
    # Eight products are eight times one, by the record of the work.
    eight = Recorded(lambda: [left @ right for _ in range(8)])
    found = measure(eight, stage="eight", unit="products", count=8, repeats=5, counters=[])
    assert found.median_s / found.count == pytest.approx(statistics.median(eight.seconds[1:]) / 8, rel=0.05)


@pytest.mark.gpu
def test_a_known_matrix_product_on_a_gpu_comes_out_right() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    side, times = 4096, 10
    left, right = torch.randn(2, side, side, device="cuda")

    def product() -> None:
        for _ in range(times):
            left @ right

    found = measure(product, stage="product", unit="products", count=times, repeats=15, warmup=5, device="cuda:0")
    seconds = []
    for _ in range(15):  # by events of its own, read from the device
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        first.record()
        product()
        last.record()
        last.synchronize()
        seconds.append(first.elapsed_time(last) / 1e3)
    assert found.median_s == pytest.approx(statistics.median(seconds), rel=0.05)
    # The clock on the wall waits for the device: the call alone comes back long before.
    assert found.wall_samples_s is not None
    assert statistics.median(found.wall_samples_s) == pytest.approx(found.median_s, rel=0.05)
    assert found.gpu_gib is not None
    assert found.gpu_reserved_gib is not None
    assert found.gpu_reserved_gib >= found.gpu_gib >= 3 * side * side * 4 / 2**30
    assert found.as_json()["clock"] == "CUDA events"


@given(st.lists(st.floats(0, 100), min_size=1, max_size=300), st.integers(1, 100))
def test_percentiles_are_those_of_numpy_by_nearest_rank(samples, percent) -> None:
    assert percentile(samples, percent) == np.percentile(samples, percent, method="inverted_cdf")


def test_percentiles_of_known_samples() -> None:
    found = Measurement("s", "things", 2, tuple(float(one) for one in range(1, 101)))
    assert (found.median_s, found.p95_s, found.p99_s) == (50.5, 95, 99)
    few = Measurement("s", "things", 1, (1.0, 5.0, 2.0))
    assert (few.median_s, few.p95_s, few.p99_s) == (2, 5, 5)
    assert Measurement("s", "things", 1, (0.0,)).per_second is None


@pytest.mark.parametrize(
    "samples, count", [((), 1), ((1.0,), 0), ((-1.0,), 1), ((float("nan"),), 1), ((float("inf"),), 1)]
)
def test_what_cannot_be_a_measurement_is_refused(samples, count) -> None:
    with pytest.raises(ValueError, match="expected"):
        Measurement("s", "things", count, samples)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"repeats": 0}, {"warmup": -1}])
def test_what_cannot_be_measured_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match="s: expected count and repeats of at least 1"):
        measure(lambda: None, **{"stage": "s", "unit": "things", "count": 1, **wrong})


def test_ours_and_the_baseline_take_turns() -> None:
    calls = []
    baseline = Baseline("theirs", lambda: calls.append("t"), count=2, before=lambda: calls.append("T"))
    found = measure(
        lambda: calls.append("o"), stage="ours", unit="things", count=1, repeats=3, warmup=1,
        baseline=baseline, before=lambda: calls.append("O"), counters=[],
    )  # fmt: skip
    assert "".join(calls) == "Oo" + "Tt" + "OoTt" + "TtOo" + "OoTt"
    assert found.baseline is not None
    assert (found.baseline.stage, found.baseline.count, len(found.baseline.samples_s)) == ("theirs", 2, 3)


def test_the_ratio_is_of_a_thing_each() -> None:
    theirs = Measurement("theirs", "things", 10, (8.0,))
    assert Measurement("ours", "things", 40, (4.0, 4.0, 9.0), baseline=theirs).ratio == pytest.approx(8)
    assert Measurement("ours", "things", 40, (4.0,)).ratio is None


def test_the_number_of_samples_follows_from_the_seconds() -> None:
    def taken(**how) -> int:
        work = lambda: time.sleep(0.01)  # noqa: E731
        return len(measure(work, stage="s", unit="things", count=1, counters=[], **how).samples_s)

    assert taken(min_seconds=0) == LEAST_SAMPLES
    assert 8 <= taken(min_seconds=0.12) <= 12
    assert taken(min_seconds=9, max_seconds=0) == 1
    assert taken(repeats=2, min_seconds=9) == 2
    quick = measure(lambda: None, stage="s", unit="things", count=1, counters=[])
    assert len(quick.samples_s) == MOST_SAMPLES


def test_json_keeps_all_of_a_measurement() -> None:
    theirs = Measurement("theirs", "things", 1, (0.3, 0.4))
    found = Measurement(
        "ours", "things", 7, (0.1, 0.2, 0.7), wall_samples_s=(0.2, 0.3, 0.8), device="cuda:0", batch_size=4,
        precision="bf16", host_gib=1.5, host_growth_gib=0.5, gpu_gib=2.0, gpu_reserved_gib=3.0, energy_j=9.0,
        energy_of=("GPU",), baseline=theirs, note="noted",
    )  # fmt: skip
    told = json.loads(json.dumps(found.as_json()))
    assert Measurement.from_json(told) == found
    assert told["median_s"] == 0.2
    assert told["p99_s"] == 0.7
    assert told["wall_median_s"] == 0.3
    assert told["baseline"]["ratio"] == pytest.approx(0.35 * 7 / 0.2)
    # What a leaderboard's row is told of a stage.
    assert {"stage", "unit", "count", "median_s", "p95_s", "p99_s", "per_second", "peak_host_gib", "peak_gpu_gib",
            "energy_j", "batch_size", "precision", "baseline"} <= set(told)  # fmt: skip
    for damaged in ({}, {**told, "samples_s": None}, {**told, "baseline": {}}):
        with pytest.raises(ValueError, match="no measurement"):
            Measurement.from_json(damaged)


HOLDS_MEMORY = """
import sys, time
import numpy as np
from harness.timing import measure

held = []

def take():
    held.append(np.ones(96 << 20, np.uint8))
    time.sleep(0.3)

found = measure(take, stage="s", unit="things", count=1, repeats=2, warmup=0, before=held.clear, counters=[])
print(found.host_growth_gib, found.host_gib, found.gpu_gib)
"""


def test_memory_that_is_held_during_the_samples_is_seen() -> None:
    # In a process of its own: one that has freed memory before may hold an array without growing.
    command = [sys.executable, "-c", HOLDS_MEMORY]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    growth, total, gpu = done.stdout.split()
    assert 0.08 < float(growth) < 0.3
    assert float(total) > float(growth)
    assert gpu == "None"


def test_memory_never_shrinks_in_a_watch() -> None:
    with MemoryWatch() as watch:
        held = np.ones(1 << 20, np.uint8)
        watch.look()
    assert held.all()
    assert watch.growth_gib >= 0
    assert watch.peak_gib >= watch.growth_gib


# --- energy ---------------------------------------------------------------------------------------


@pytest.fixture
def powercap(tmp_path):
    def domain(folder: str, name: str, most: int = 1_000_000, energy: str | None = "900000") -> None:
        place = tmp_path / folder
        place.mkdir()
        (place / "name").write_text(name + "\n")
        (place / "max_energy_range_uj").write_text(f"{most}\n")
        if energy is not None:
            (place / "energy_uj").write_text(energy)

    domain("intel-rapl:0", "package-0")
    domain("intel-rapl:0:0", "core")
    domain("intel-rapl:1", "package-1", energy=None)  # where only root may read
    domain("intel-rapl:2", "psys")
    (tmp_path / "intel-rapl:3").mkdir()
    return tmp_path


def test_packages_alone_are_counted_and_a_counter_may_wrap_around(powercap) -> None:
    (counter,) = energy_counters(None, powercap)
    assert counter.name == "CPU package-0"
    before = counter.read()
    (powercap / "intel-rapl:0" / "energy_uj").write_text("400000\n")
    after = counter.read()
    assert (before, after) == (900_000, 400_000)
    assert counter.joules(before, after) == pytest.approx(0.5)  # 0.1 J up to the end of the range, 0.4 J from 0 on
    assert counter.joules(400_000, 900_000) == pytest.approx(0.5)
    (powercap / "intel-rapl:0" / "energy_uj").unlink()
    assert counter.read() is None


def test_without_counters_energy_is_unknown_and_not_zero(tmp_path) -> None:
    assert energy_counters(None, tmp_path) == []
    assert energy_counters("cpu", tmp_path / "nowhere") == []
    found = measure(lambda: time.sleep(0.2), stage="s", unit="things", count=1, repeats=3, counters=[])
    assert found.energy_j is None
    assert found.energy_of == ()


class Counting:
    name = "CPU package-0"

    def __init__(self, rate_w: float, stops: bool = False) -> None:
        self.rate_w, self.stops, self.readings = rate_w, stops, 0

    def read(self) -> int | None:
        self.readings += 1
        return None if self.stops and self.readings > 3 else int(time.perf_counter() * self.rate_w * 1e6)

    def joules(self, before: int, after: int) -> float:
        return (after - before) / 1e6


def test_energy_is_that_of_a_sample() -> None:
    def joules(seconds: float, counter: Counting) -> float | None:
        work = lambda: time.sleep(seconds)  # noqa: E731
        return measure(work, stage="s", unit="things", count=1, repeats=3, counters=[counter]).energy_j

    assert joules(0.2, Counting(10.0)) == pytest.approx(2, rel=0.05)
    assert joules(0.01, Counting(10.0)) is None, "too little to be told by counters that move every 100 ms"
    assert joules(0.2, Counting(0.0)) is None, "a counter that stands still counts nothing"
    assert joules(0.2, Counting(10.0, stops=True)) is None


class FakeNvml(types.ModuleType):
    class NVMLError(Exception):
        pass

    def __init__(self, energies) -> None:
        super().__init__("pynvml")
        self.energies = list(energies)

    def nvmlInit(self) -> None:
        if not self.energies:
            raise self.NVMLError("no driver")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != "GPU-some-uuid":
            raise self.NVMLError("no such device")
        return "handle"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        assert handle == "handle"
        value = self.energies.pop(0)
        if value is None:
            raise self.NVMLError("not supported")
        return value


@pytest.fixture
def gpu(monkeypatch):
    import torch

    properties = types.SimpleNamespace(uuid="some-uuid")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return properties


def test_a_gpu_is_counted_by_its_driver(gpu, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml([1000, 5000, 7500]))
    (counter,) = energy_counters("cuda:0", tmp_path)
    assert counter.name == "GPU"
    before, after = counter.read(), counter.read()
    assert counter.joules(before, after) == pytest.approx(2.5)
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml([1000]))
    assert energy_counters("cpu", tmp_path) == []


@pytest.mark.parametrize("energies, uuid", [([], "some-uuid"), ([None], "some-uuid"), ([1000], "part-of-a-gpu")])
def test_a_gpu_that_its_driver_does_not_count_is_left_out(energies, uuid, gpu, monkeypatch, tmp_path) -> None:
    gpu.uuid = uuid
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(energies))
    assert energy_counters("cuda:0", tmp_path) == []


def test_without_the_drivers_library_gpus_are_not_counted(gpu, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy_counters("cuda:0", tmp_path) == []
