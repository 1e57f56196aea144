"""Jobs side by side in processes of one thread each.

Two single-thread trainings beside each other do 1.4 times the work of one on two threads, for
small models on two cores.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.progress import Reporter
from harness.training.fitting import read_progress
from harness.training.launching import die_with
from harness.types import InputError, Progress

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)


@dataclass(frozen=True)
class Job:
    """One call of a module-level function in a worker.

    Attributes:
        name: shown beside its bar; names differ within a batch.
        function: importable by name, since the worker is a fresh process.
        arguments: by keyword; values that pickle.
        watch: folder in which the job writes its progress (see `harness.training.fitting`); None if it tells nothing.
    """

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    watch: Path | None = None


def side_by_side(jobs: Sequence[Job], num_workers: int, report: Reporter) -> dict[str, Any]:
    """Run all jobs, ``num_workers`` at a time; return their results by name.

    If this process dies, so do its workers (on Linux), so that a run started again never meets a
    training that is still going on.

    Raises:
        InputError: a worker was ended from outside (by the system when memory ran out, usually).
        Exception: whatever a job raised; the jobs that have not begun are not begun.
    """
    results: dict[str, Any] = {}
    shown: dict[str, Progress] = {}
    with _one_thread_each():
        pool = ProcessPoolExecutor(
            max_workers=min(num_workers, max(len(jobs), 1)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_prepare,
            initargs=(os.getpid(),),
        )
        try:
            pending: dict[Future[Any], Job] = {pool.submit(job.function, **job.arguments): job for job in jobs}
            while pending:
                done, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    job = pending.pop(future)
                    results[job.name] = future.result()
                for future, job in pending.items():
                    if future.running() and job.watch is not None:
                        _show(job, shown, report)
                for job in jobs:
                    if job.name in results and job.name in shown:
                        _show(job, shown, report)
                        del shown[job.name]
        except BaseException as error:
            # A running job would otherwise be waited for, long after its result has become useless.
            for process in list((pool._processes or {}).values()):
                process.kill()
            if not isinstance(error, BrokenProcessPool):
                raise
            raise InputError(
                "a worker process was ended from outside, most likely because memory ran out; "
                "start again with fewer workers, finished work is kept"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return results


def _show(job: Job, shown: dict[str, Progress], report: Reporter) -> None:
    told = read_progress(job.watch) if job.watch is not None else None
    if told is not None:
        if job.name not in shown:
            shown[job.name] = report(job.name)
        shown[job.name](*told)


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_threads() -> int:
    """The threads that it makes sense to compute in: a core each; fewer where ``OMP_NUM_THREADS`` says so."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(available_cores(), int(asked))) if asked.isdigit() else available_cores()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Children started in the block compute on one thread; this process keeps what it had."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _prepare(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted and ends its workers
    die_with(parent)
