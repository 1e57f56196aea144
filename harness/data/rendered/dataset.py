"""Write a rendered data set as a DeepFashion2 folder: same names, same annotation fields.

Every photo depends on the settings and its own number alone, so the bytes do not depend on how many
processes render, nor on how often the work was interrupted.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import cv2
import orjson

from harness.data.rendered.photo import take_photo
from harness.data.rendered.plan import PhotoPlan, RenderSettings, photos_of
from harness.types import SPLITS, InputError, Progress, SplitName

RENDERER_VERSION = 4
"""Raised whenever the same settings give other bytes."""
MARKER = "RENDERED.json"
UNFINISHED_MARKER = "RENDERING.json"

_README = """This data set was rendered by a program: no photo in it was taken, no garment in it exists.

Folders and annotations are laid out as in DeepFashion2 (train, validation, test; image and annos).
The test split has photos only; what is true of them lies apart, in test_truth/annos.
RENDERED.json holds the settings that made it; the same settings give the same bytes.

In the annotations: scale is 1 below a visible share of 10 % of the photo and 3 from 30 %; occlusion
is 1 below 10 % covered and 3 from 35 %; zoom_in is 1 if every landmark is inside the photo and 3 if
more than 35 % are outside; viewpoint is 1 laid flat, 2 frontal, 3 side or back.
"""


def _annotation_path(root: Path, split: SplitName, image_id: int) -> Path:
    folder = root / ("test_truth" if split == "test" else split) / "annos"
    return folder / f"{image_id:06d}.json"


def _photo_path(root: Path, split: SplitName, image_id: int) -> Path:
    return root / split / "image" / f"{image_id:06d}.jpg"


def _write(path: Path, content: bytes) -> None:
    """Write a file so that it is either whole or absent."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def _render_photo(root: Path, split: SplitName, plan: PhotoPlan) -> None:
    photo, annotation = _photo_path(root, split, plan.image_id), _annotation_path(root, split, plan.image_id)
    if annotation.exists() and photo.exists():
        return
    content, truth = take_photo(plan)
    _write(photo, content)
    _write(annotation, orjson.dumps(truth))


def _render_share(
    root: Path, settings: RenderSettings, first: int, step: int, pipe: Connection | None
) -> Iterator[None]:
    """Every ``step``-th photo from the ``first``; yields after each, and tells the pipe if there is one."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        photos = [(split, plan) for split in SPLITS for plan in photos_of(settings, split)]
        for split, plan in photos[first::step]:
            _render_photo(root, split, plan)
            if pipe is not None:
                pipe.send(1)
            yield
    finally:
        cv2.setNumThreads(threads)


def _work(root: Path, settings: RenderSettings, first: int, step: int, pipe: Connection) -> None:
    """A rendering process: its share of the photos.

    A killed parent no longer reads the pipe, so the next photo is the last: no orphan goes on rendering.
    """
    try:
        for _ in _render_share(root, settings, first, step, pipe):
            pass
    except BrokenPipeError:
        return


def _marker(settings: RenderSettings) -> dict[str, Any]:
    return {"rendered": True, "renderer_version": RENDERER_VERSION, "settings": settings.model_dump()}


def _read_marker(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON ({error}); render into another folder or delete this one") from error


def _claim(root: Path, settings: RenderSettings) -> bool:
    """Make the folders; True if the data set is complete already."""
    wanted = _marker(settings)
    for name in (MARKER, UNFINISHED_MARKER):
        path = root / name
        if path.exists():
            found = _read_marker(path)
            if found != wanted:
                raise InputError(
                    f"{path}: the folder holds a data set of other settings: expected {wanted}, got {found}; "
                    "render into another folder or delete this one"
                )
            if name == MARKER:
                return True
            break
    else:
        if root.exists() and (not root.is_dir() or any(not p.name.startswith(".") for p in root.iterdir())):
            raise InputError(f"{root}: not empty and not a rendered data set; render into a new or empty folder")
        root.mkdir(parents=True, exist_ok=True)
        _write(root / UNFINISHED_MARKER, orjson.dumps(wanted))
    for split in SPLITS:
        (root / split / "image").mkdir(parents=True, exist_ok=True)
        _annotation_path(root, split, 1).parent.mkdir(parents=True, exist_ok=True)
    return False


def render(root: Path, settings: RenderSettings, *, workers: int = 2, progress: Progress | None = None) -> None:
    """Render a data set into a folder; go on where an interrupted rendering stopped.

    Args:
        root: a new or empty folder, or one that holds the same data set, complete or not.
        settings: size and seed; the same settings give the same bytes.
        workers: processes that render, at least 1; with 1 this process does the work itself.
        progress: called with (photos done, photos in all).

    Raises:
        InputError: the folder holds something else, or a data set of other settings.
        ValueError: ``workers`` is below 1.
        RuntimeError: a rendering process died; starting again goes on.
    """
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    root = Path(root)
    if _claim(root, settings):
        return
    total = sum(settings.num_photos(split) for split in SPLITS)
    done = 0
    if workers == 1:
        for _ in _render_share(root, settings, 0, 1, None):
            done += 1
            if progress is not None:
                progress(done, total)
    else:
        for done in _gather(root, settings, workers):
            if progress is not None:
                progress(done, total)
    for split in SPLITS[1:]:
        _write_information(root, settings, split)
    _write(root / "README.txt", _README.encode())
    for left_over in root.rglob(".*.tmp"):
        left_over.unlink()
    _write(root / MARKER, orjson.dumps(_marker(settings), option=orjson.OPT_INDENT_2))
    (root / UNFINISHED_MARKER).unlink()


def _gather(root: Path, settings: RenderSettings, workers: int) -> Iterator[int]:
    """Start the rendering processes and yield the number of photos done as it grows."""
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes = []
    done = 0
    try:
        for first in range(workers):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(root, settings, first, workers, sender), daemon=True)
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


def _write_information(root: Path, settings: RenderSettings, split: SplitName) -> None:
    """The challenge's lists of consumer and shop photos."""
    for is_consumer, name in ((True, "consumer"), (False, "shop")):
        images = []
        for plan in photos_of(settings, split):
            if plan.is_consumer == is_consumer:
                path = _photo_path(root, split, plan.image_id)
                image = cv2.imread(str(path))
                if image is None:
                    raise InputError(f"{path}: not a readable photo; delete it and render again")
                height, width = image.shape[:2]
                images.append({"id": plan.image_id, "file_name": path.name, "width": width, "height": height})
        short = "val" if split == "validation" else split
        _write(root / f"retrieval_{short}_{name}_information.json", orjson.dumps({"images": images}))
