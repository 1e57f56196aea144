"""Write a rendered data set as a DeepFashion2 folder: same names, same annotation fields.

Every photo depends on the settings and its own number alone, so the bytes do not depend on how many
processes render, nor on how often the work was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import orjson

from harness.data.rendered.folder import claimed, write
from harness.data.rendered.photo import take_photo
from harness.data.rendered.plan import PhotoPlan, RenderSettings, photos_of
from harness.data.rendered.sharing import in_shares
from harness.types import SPLITS, InputError, Progress, SplitName

RENDERER_VERSION = 4
"""Raised whenever the same settings give other bytes."""

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


def _render_photo(root: Path, split: SplitName, plan: PhotoPlan) -> None:
    photo, annotation = _photo_path(root, split, plan.image_id), _annotation_path(root, split, plan.image_id)
    if annotation.exists() and photo.exists():
        return
    content, truth = take_photo(plan)
    write(photo, content)
    write(annotation, orjson.dumps(truth))


def _render_share(root: Path, settings: RenderSettings, first: int, step: int) -> Iterator[None]:
    """Every ``step``-th photo from the ``first``; yields after each."""
    photos = [(split, plan) for split in SPLITS for plan in photos_of(settings, split)]
    for split, plan in photos[first::step]:
        _render_photo(root, split, plan)
        yield


def _marker(settings: RenderSettings) -> dict[str, Any]:
    return {"rendered": True, "renderer_version": RENDERER_VERSION, "settings": settings.model_dump()}


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
    root = Path(root)
    with claimed(root, _marker(settings), _README) as is_new:
        if not is_new:
            return
        for split in SPLITS:
            (root / split / "image").mkdir(parents=True, exist_ok=True)
            _annotation_path(root, split, 1).parent.mkdir(parents=True, exist_ok=True)
        total = sum(settings.num_photos(split) for split in SPLITS)
        for done in in_shares(_render_share, root, settings, workers):
            if progress is not None:
                progress(done, total)
        for split in SPLITS[1:]:
            _write_information(root, settings, split)


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
        write(root / f"retrieval_{short}_{name}_information.json", orjson.dumps({"images": images}))
