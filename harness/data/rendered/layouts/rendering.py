"""Write a rendered training source into a folder, resumable and the same for the same settings."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator

from harness.data.rendered.dataset import RENDERER_VERSION
from harness.data.rendered.folder import claimed, write
from harness.data.rendered.layouts import darn, mpv, mvc, street2shop, zalando
from harness.data.rendered.layouts.drawing import Box, Layout, LayoutPhoto
from harness.data.rendered.photo import take_photo
from harness.data.rendered.sharing import in_shares
from harness.types import Progress

LAYOUTS: Mapping[str, Callable[[int, int], Layout]] = MappingProxyType(
    {
        "Street2Shop": street2shop.layout,
        "DARN": darn.layout,
        "MVC": mvc.layout,
        "MPV": mpv.layout,
        "Zalando": zalando.layout,
    }
)
"""Source -> its photos and lists, given seed and number of garments."""

MIN_GARMENTS = 12
"""Fewer have no room for what is planted."""

_BOXES = ".boxes"

_README = """This data set was rendered by a program: no photo in it was taken, no garment in it exists.

Folders, names and lists are laid out as in {layout}. A few of the faults that the real one has are
in it on purpose; `run.py data check DIR --source {layout}` counts them. RENDERED.json holds the
settings that made it; the same settings give the same bytes.
"""


class LayoutSettings(BaseModel):
    """What to render, how much of it, and from which seed.

    Attributes:
        layout: one of `LAYOUTS`.
        seed: decides every byte, at least 0; garments and photos are others than DeepFashion2's of the same seed.
        num_garments: different items, at least `MIN_GARMENTS`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: str
    seed: int = Field(default=0, ge=0)
    num_garments: int = Field(default=300, ge=MIN_GARMENTS)

    @field_validator("layout")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in LAYOUTS:
            raise ValueError(f"expected one of {', '.join(LAYOUTS)}")
        return name


def render_layout(
    root: Path, settings: LayoutSettings, *, workers: int = 2, progress: Progress | None = None
) -> tuple[int, int]:
    """Render a training source into a folder; go on where an interrupted rendering stopped.

    Args:
        root: a new or empty folder, or one that holds the same data set, complete or not.
        settings: what.
        workers: processes that render, at least 1.
        progress: called with (photos done, photos in all).

    Returns:
        How many garments and photos it has.

    Raises:
        InputError: the folder holds something else, or a data set of other settings.
        ValueError: ``workers`` is below 1.
        RuntimeError: a rendering process died; starting again goes on.
    """
    layout = _layout(settings)
    marker = {"rendered": True, "renderer_version": RENDERER_VERSION, "settings": settings.model_dump()}
    with claimed(root, marker, _README.format(layout=settings.layout)) as is_new:
        if is_new:
            for folder in {(root / photo.file).parent for photo in layout.photos} | {root / _BOXES}:
                folder.mkdir(parents=True, exist_ok=True)
            for done in in_shares(_render_share, root, settings, workers):
                if progress is not None:
                    progress(done, len(layout.photos))
            boxes = {
                photo.file: {
                    int(number): box for number, box in orjson.loads(_boxes_file(root, photo).read_bytes()).items()
                }
                for photo in layout.photos
                if photo.boxed
            }
            for name, content in layout.lists(boxes).items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                write(root / name, content)
            shutil.rmtree(root / _BOXES)
    return settings.num_garments, len(layout.photos)


@lru_cache(maxsize=2)
def _layout(settings: LayoutSettings) -> Layout:
    return LAYOUTS[settings.layout](settings.seed, settings.num_garments)


def _render_share(root: Path, settings: LayoutSettings, first: int, step: int) -> Iterator[None]:
    for photo in _layout(settings).photos[first::step]:
        _render(root, photo)
        yield


def _boxes_file(root: Path, photo: LayoutPhoto) -> Path:
    return root / _BOXES / f"{photo.plan.image_id}.json"


def _render(root: Path, photo: LayoutPhoto) -> None:
    """One photo with its copies; the photo itself comes last and says that all is there."""
    if (root / photo.file).exists():
        return
    content, truth = take_photo(photo.plan)
    if photo.form == "png":
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None
        content = cv2.imencode(".png", pixels)[1].tobytes()
    if photo.boxed:
        write(_boxes_file(root, photo), orjson.dumps(_boxes(truth), option=orjson.OPT_NON_STR_KEYS))
    for name in (*photo.copies, photo.file):
        write(root / name, content)


def _boxes(truth: dict[str, object]) -> dict[int, Box]:
    """Number of the garment in the photo, from 1 -> its box."""
    items = [item for name, item in truth.items() if name.startswith("item") and isinstance(item, dict)]
    return {int(item["style"]): tuple(item["bounding_box"]) for item in items}
