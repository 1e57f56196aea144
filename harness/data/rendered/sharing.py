"""Rendering in several processes, each with every n-th photo."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TypeVar

import cv2

Settings = TypeVar("Settings")

Share = Callable[[Path, Settings, int, int], Iterator[None]]
"""Called with the folder, the settings, first and step: renders every ``step``-th photo and yields after each.

Importable by name, since every process is a fresh one.
"""


def in_shares(share: Share[Settings], root: Path, settings: Settings, workers: int) -> Iterator[int]:
    """Render all photos; yields the number done as it grows.

    Args:
        share: renders a share of them.
        root, settings: passed on.
        workers: processes, at least 1; with 1 this process does the work itself.

    Raises:
        ValueError: ``workers`` is below 1.
        RuntimeError: a rendering process died; starting again goes on.
    """
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    if workers == 1:
        yield from _alone(share, root, settings)
        return
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes = []
    done = 0
    try:
        for first in range(workers):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(share, root, settings, first, workers, sender), daemon=True)
            process.start()
            sender.close()
            pipes.append(receiver)
            processes.append(process)
        while pipes:
            ready = wait(pipes)
            for pipe in [pipe for pipe in pipes if pipe in ready]:
                try:
                    done += pipe.recv()
                except EOFError:
                    pipes.remove(pipe)
            yield done
        for process in processes:
            process.join()
            if process.exitcode != 0:
                raise RuntimeError(f"{root}: a rendering process died (exit {process.exitcode}); start again to go on")
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()


def _alone(share: Share[Settings], root: Path, settings: Settings) -> Iterator[int]:
    """All photos in this process, with one thread of OpenCV as in every other one."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for done, _ in enumerate(share(root, settings, 0, 1), 1):
            yield done
    finally:
        cv2.setNumThreads(threads)


def _work(share: Share[Settings], root: Path, settings: Settings, first: int, step: int, pipe: Connection) -> None:
    """A rendering process: its share of the photos.

    A killed parent no longer reads the pipe, so the next photo is the last: no orphan goes on rendering.
    """
    cv2.setNumThreads(1)
    try:
        for _ in share(root, settings, first, step):
            pipe.send(1)
    except BrokenPipeError:
        return
