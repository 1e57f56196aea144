"""Stage timers and the memory watch."""

import subprocess
import sys
import time

from harness.provenance import code_version, hardware
from harness.timing import StageTime, Stopwatch


def test_a_stage_with_a_known_sleep_comes_out_right() -> None:
    watch = Stopwatch()
    began = time.perf_counter()
    with watch.stage("sleep", "naps") as clock:
        time.sleep(0.5)
        clock.count = 5
    around = time.perf_counter() - began
    (stage,) = watch.stages
    assert (stage.stage, stage.count, stage.unit) == ("sleep", 5, "naps")
    assert 0.5 <= stage.seconds <= around
    assert stage.per_second == 5 / stage.seconds


def test_a_stage_that_fails_is_timed_all_the_same() -> None:
    watch = Stopwatch()
    try:
        with watch.stage("fails"):
            raise KeyError
    except KeyError:
        pass
    assert [stage.stage for stage in watch.stages] == ["fails"]


def test_the_rate_is_that_of_making_the_result() -> None:
    assert StageTime("s", 0.001, count=10, from_store=True, cost_seconds=2.0).per_second == 5
    assert StageTime("s", 1.0).per_second is None


def test_the_memory_watch_sees_what_is_taken_while_it_runs() -> None:
    # In a process of its own: one that has freed memory before may take 300 MiB without growing.
    script = """
import time
import numpy as np
from harness.timing import MemoryWatch
with MemoryWatch(every_s=0.02) as before:
    time.sleep(0.1)
with MemoryWatch(every_s=0.02) as watch:
    taken = np.ones(300 << 20, np.uint8)
    time.sleep(0.2)
print(watch.peak_gib - before.peak_gib)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 0.25 < float(done.stdout) < 0.4


def test_a_result_can_say_what_made_it() -> None:
    assert hardware()["cores"] >= 1
    assert "numpy" in hardware()["versions"]
    assert code_version().startswith("0.1.0")
