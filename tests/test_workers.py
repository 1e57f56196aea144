"""Jobs side by side: results by name, failures told, nothing left running."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from harness.progress import silent
from harness.training.fitting import write_progress
from harness.types import InputError
from harness.workers import Job, side_by_side


def number_of_threads(unused: int) -> str:
    return os.environ["OMP_NUM_THREADS"]


def add(a: int, b: int) -> int:
    return a + b


def refuse() -> None:
    raise InputError("photo 7 is broken")


def end_abruptly() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_long() -> None:
    time.sleep(120)


def work_and_tell(folder: Path) -> None:
    for done in range(4):
        write_progress(folder, done, 3, 1.0)
        time.sleep(0.4)


def test_results_come_back_by_name() -> None:
    jobs = [Job(f"sum {n}", add, {"a": n, "b": 1}) for n in range(5)]
    assert side_by_side(jobs, 2, silent) == {f"sum {n}": n + 1 for n in range(5)}


def test_nothing_to_do_is_done() -> None:
    assert side_by_side([], 2, silent) == {}


def test_every_worker_computes_on_one_thread_and_this_process_keeps_its_own(monkeypatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert side_by_side([Job("threads", number_of_threads, {"unused": 0})], 1, silent) == {"threads": "1"}
    assert "OMP_NUM_THREADS" not in os.environ


def test_what_a_job_raises_is_raised_here_and_the_others_are_ended() -> None:
    began = time.perf_counter()
    with pytest.raises(InputError, match="photo 7 is broken"):
        side_by_side([Job("long", sleep_long), Job("bad", refuse)], 2, silent)
    assert time.perf_counter() - began < 115  # the long one would take 120


def test_a_worker_that_is_killed_is_told() -> None:
    with pytest.raises(InputError, match="ended from outside"):
        side_by_side([Job("gone", end_abruptly)], 1, silent)


def test_progress_is_shown_to_the_end(tmp_path) -> None:
    told: list[tuple[str, int, int]] = []

    def report(stage: str):
        return lambda done, total: told.append((stage, done, total))

    side_by_side([Job("tell", work_and_tell, {"folder": tmp_path}, tmp_path)], 1, report)
    assert told[-1] == ("tell", 3, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="the parent's death is signalled on Linux only")
def test_workers_die_with_their_parent(tmp_path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from harness.progress import silent
        from harness.workers import Job, side_by_side
        from test_workers import sleep_long
        if __name__ == "__main__":
            side_by_side([Job("a", sleep_long), Job("b", sleep_long)], 2, silent)
        """)
    )
    with subprocess.Popen([sys.executable, str(script)]) as parent:
        workers: list[psutil.Process] = []
        deadline = time.monotonic() + 60
        while len(workers) < 3 and time.monotonic() < deadline:  # two workers and the resource tracker
            time.sleep(0.2)
            workers = psutil.Process(parent.pid).children(recursive=True)
        time.sleep(1)
        parent.kill()
    _, alive = psutil.wait_procs(workers, timeout=100)
    assert not alive
