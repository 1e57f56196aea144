"""Several processes of one command: started together, ended together, one message."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.training.launching import ending_together, launch, num_processes_wanted
from harness.training.processes import Place, any_of, first_does, gathered, place, share_of_step
from harness.types import InputError

KNOWN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


@pytest.fixture
def environment(monkeypatch):
    for name in KNOWN:
        monkeypatch.delenv(name, raising=False)

    def as_if(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))

    return as_if


def test_a_process_finds_its_place(environment):
    assert place() == Place(0, 1, 0, 1)
    environment(SLURM_STEP_NUM_TASKS=8, SLURM_STEP_NUM_NODES=2, SLURM_PROCID=5, SLURM_LOCALID=1)
    assert place() == Place(5, 8, 1, 4)
    assert place().num_nodes == 2
    environment(RANK=3, WORLD_SIZE=4, LOCAL_RANK=1, LOCAL_WORLD_SIZE=2)
    assert place() == Place(3, 4, 1, 2)


def test_alone_everything_is_done_here(environment):
    assert first_does(lambda: 7) == 7
    assert gathered(7) == [7]
    assert (any_of(True), any_of(False)) == (True, False)
    assert launch(1) is None
    with pytest.raises(ZeroDivisionError), ending_together():
        raise ZeroDivisionError


@pytest.mark.parametrize(("arguments", "share"), [((16, 1), 16), ((16, 8), 2), ((16, 4, 2), 2), ((3, 1, 3), 1)])
def test_a_step_is_shared_out(arguments, share):
    assert share_of_step(*arguments) == share


def test_a_step_that_cannot_be_shared_out_is_refused():
    with pytest.raises(InputError, match=r"12 photos .* 5 processes .* one of 1, 2, 3, 4, 6, 12"):
        share_of_step(12, 5)
    with pytest.raises(InputError, match=r"8 photos .* 2 processes in 8 parts"):
        share_of_step(8, 2, 8)


def test_how_many_are_wanted(environment, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert (num_processes_wanted(0, 1), num_processes_wanted(3, 1)) == (1, 3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert (num_processes_wanted(0, 1), num_processes_wanted(2, 1)) == (4, 2)
    with pytest.raises(InputError, match=r"--devices 5: this machine has 4 GPUs"):
        num_processes_wanted(5, 1)
    with pytest.raises(InputError, match="torchrun --nnodes 2 --nproc-per-node 4"):
        num_processes_wanted(0, 2)
    environment(RANK=3, WORLD_SIZE=4, LOCAL_RANK=1, LOCAL_WORLD_SIZE=2)
    assert num_processes_wanted(0, 2) == num_processes_wanted(2, 1) == 4
    with pytest.raises(InputError, match="the launcher started 2 processes on each of 2 machines"):
        num_processes_wanted(4, 2)


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from harness.training import launching, processes

status = launching.launch(2)
if status is not None:
    sys.exit(status)
here = processes.place()
out = Path(sys.argv[2])
(out / f"pid{here.rank}").write_text(str(os.getpid()))

def work(how):
    if how == "share":
        processes.join()
        got = processes.first_does(lambda: os.getpid())
        all_pids = processes.gathered(os.getpid())
        assert got == all_pids[0] and len(set(all_pids)) == 2
        assert processes.any_of(here.rank == 1) and not processes.any_of(False)
        (out / f"shared{here.rank}").touch()
        while not (out / f"shared{1 - here.rank}").exists():  # or the death of the first meets the other in the above
            time.sleep(0.01)
        processes.first_does(lambda: {}["key"])
    elif how == "one fails":
        processes.join()
        if here.rank == 1:
            raise ValueError("photo 7 is gone")
        processes.gathered(1)
    elif how == "all fail":
        raise ValueError("no such folder")
    elif how == "killed":
        processes.join()
        if here.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        processes.gathered(1)
    else:
        told = []
        signal.signal(signal.SIGTERM, lambda *_: told.append(1))
        signal.signal(signal.SIGINT, lambda *_: told.append(1))
        (out / f"ready{here.rank}").touch()
        while not told:
            time.sleep(0.01)
        (out / f"told{here.rank}").touch()
        sys.exit(143)

with launching.ending_together():
    work(sys.argv[1])
"""


def start(tmp_path: Path, how: str) -> "subprocess.Popen[str]":
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, str(script), how, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={name: value for name, value in os.environ.items() if name not in KNOWN},
    )


def none_is_left(tmp_path: Path) -> bool:
    """Whether the processes that wrote their ids are gone, within a minute."""
    for _ in range(600):
        alive = [path for path in tmp_path.glob("pid*") if Path("/proc", path.read_text()).exists()]
        if not alive:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_processes_share_what_they_know_and_an_error_of_the_first(tmp_path):
    child = start(tmp_path, "share")
    _, errors = child.communicate(timeout=200)
    assert sorted(path.name for path in tmp_path.glob("shared*")) == ["shared0", "shared1"], errors
    assert child.returncode == 1
    assert errors.count("Traceback") == 1
    assert "KeyError: 'key'" in errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("one fails", "ValueError: photo 7 is gone"),
        ("all fail", "ValueError: no such folder"),
    ],
)
def test_the_first_error_ends_all_and_is_told_once(how, message, tmp_path):
    child = start(tmp_path, how)
    _, errors = child.communicate(timeout=200)
    assert child.returncode == 1
    assert errors.count("Traceback") == 1
    assert message in errors
    assert none_is_left(tmp_path)


@pytest.mark.slow
def test_the_death_of_one_ends_all(tmp_path):
    child = start(tmp_path, "killed")
    child.communicate(timeout=200)
    assert child.returncode != 0
    assert none_is_left(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_to_the_launcher_reaches_all(number, tmp_path):
    child = start(tmp_path, "wait")
    while len(list(tmp_path.glob("ready*"))) < 2:
        assert child.poll() is None
        time.sleep(0.02)
    if number == signal.SIGINT:
        os.killpg(child.pid, number)  # as a terminal does
    else:
        child.send_signal(number)
    child.communicate(timeout=200)
    assert none_is_left(tmp_path)
    if number != signal.SIGKILL:
        assert child.returncode == 143
        assert len(list(tmp_path.glob("told*"))) == 2
