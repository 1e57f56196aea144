"""One photo: a camera looks at a dressed body (or clothes laid flat), and what it saw is measured.

Everything the annotation says is read off the rendered label map, not drawn beforehand. The picture
is painted at `OVERSAMPLING` times its size and shrunk.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from harness.data.layout import RENDERED_COMMENT
from harness.data.rendered import scene
from harness.data.rendered.body import draw_pose, paint
from harness.data.rendered.canvas import Camera, Canvas, Image
from harness.data.rendered.garments import shape_of
from harness.data.rendered.measurement import measure
from harness.data.rendered.plan import PhotoPlan
from harness.data.rendered.silhouette import Pose, Shape
from harness.data.rendered.wardrobe import BOTTOMS, OUTWEAR
from harness.types import CATEGORIES

OVERSAMPLING = 2


def _camera(
    rng: scene.Rng, plan: PhotoPlan, pose: Pose, viewpoint: int, shapes: list[Shape], size: tuple[int, int], calm: int
) -> Camera:
    outlines = [np.concatenate([part.outline for part in shape.parts]) for shape in shapes]
    about = outlines[0] if rng.random() < (0.6 if plan.is_consumer else 0.5) else np.concatenate(outlines)
    low, high = about.min(0), about.max(0)
    room = np.array(size, dtype=float)
    if plan.is_consumer:
        fill = min(float(rng.uniform(0.55, 1.08)), 1.1 - 0.15 * calm)
        away = rng.normal(0, 0.05, 2) * room / (1 + calm)
    else:
        fill = float(rng.uniform(0.74, 0.94) if rng.random() < 0.85 else rng.uniform(0.95, 1.15))
        away = rng.normal(0, 0.01, 2) * room
    scale = fill * float((room / (high - low + 0.05)).min())
    focus, centre = (low + high) / 2, room / 2 + away
    if not plan.is_consumer:
        roll = float(rng.normal(0, 0.03)) if pose.flat else 0.0
        return Camera(scale, focus, centre, roll=roll, sway=float(rng.normal(0, 0.006)))
    squeeze, bend = 1.0, 0.0
    if viewpoint == 3:
        squeeze = float(rng.uniform(0.68, 0.88)) if not pose.back else float(rng.uniform(0.8, 1.0))
        bend = float(rng.choice([-1, 1]) * rng.uniform(0.15, 0.4)) * (1 - squeeze) * 2
    return Camera(
        scale, focus, centre, squeeze, bend,
        sway=float(rng.normal(0, 0.025)),
        phase=float(rng.uniform(0, 6.3)),
        roll=float(rng.normal(0, 0.3 if pose.flat else 0.1)),
        tilt=(float(rng.normal(0, 0.08)), float(rng.normal(0, 0.08))),
    )  # fmt: skip


_ORDER = {**dict.fromkeys(BOTTOMS, 0), **dict.fromkeys(OUTWEAR, 2)}


def _attempt(plan: PhotoPlan, calm: int) -> tuple[Image, list[dict[str, Any]]]:
    rng = np.random.default_rng([*plan.seed, calm])
    width, height = int(rng.integers(150, 216)), 0
    height = min(256, int(width * rng.uniform(0.95, 1.45)))
    big = (width * OVERSAMPLING, height * OVERSAMPLING)
    pose, viewpoint = draw_pose(rng, plan.is_consumer, plan.view)
    garments = [worn.garment for worn in plan.worn]
    shapes = [shape_of(garment, pose) for garment in garments]
    camera = _camera(rng, plan, pose, viewpoint, shapes, big, calm)
    if not plan.is_consumer:
        backdrop = scene.shop_backdrop(rng, width, height)
        skin: Any = (*scene.MANNEQUINS, None, *scene.SKINS[:3])[int(rng.integers(7))]
    else:
        backdrop = (scene.surface if pose.flat else scene.consumer_backdrop)(rng, width, height)
        skin = scene.SKINS[int(rng.integers(len(scene.SKINS)))]
    folds = scene.soft_field(rng, *big, 9, 0.15 if plan.is_consumer else 0.08)
    canvas = Canvas(cv2.resize(backdrop, big), camera, len(shapes), folds)  # type: ignore[arg-type]
    order = sorted(range(len(shapes)), key=lambda row: _ORDER.get(garments[row].category_id, 1))
    paint(rng, canvas, pose, [(row + 1, garments[row], shapes[row]) for row in order], skin)
    if plan.is_consumer and calm < 2:
        pixels = camera.place(np.concatenate([part.outline for part in shapes[0].parts]))
        x1, y1 = pixels.min(0).clip(0, big)
        x2, y2 = pixels.max(0).clip(0, big)
        for _ in range(int(rng.choice(3, p=[0.75, 0.2, 0.05]))):
            scene.cover(rng, canvas.image, canvas.label, (x1, y1, x2, y2))
    image = cv2.resize(canvas.image, (width, height), interpolation=cv2.INTER_AREA)
    image = scene.develop(rng, image, plan.is_consumer)  # type: ignore[arg-type]
    label = np.ascontiguousarray(canvas.label[::OVERSAMPLING, ::OVERSAMPLING])
    items = []
    for row, (worn, shape) in enumerate(zip(plan.worn, shapes, strict=True)):
        silhouette = canvas.silhouettes[row, ::OVERSAMPLING, ::OVERSAMPLING] > 0
        landmarks = camera.place(shape.landmarks) / OVERSAMPLING
        item = measure(label == row + 1, silhouette, landmarks, viewpoint)
        if item is not None:
            names = {"category_name": CATEGORIES[worn.garment.category_id - 1], "category_id": worn.garment.category_id}
            items.append({"row": row, **names, "style": worn.style, **item})
    return image, items


def take_photo(plan: PhotoPlan) -> tuple[bytes, dict[str, Any]]:
    """The photo and what is true of it.

    Args:
        plan: what is in the photo.

    Returns:
        The JPEG file's bytes, and the annotation as DeepFashion2 writes it. Where the garment that the
        photo is about would be hardly seen, the photo is taken again, nearer and with less in the way.
    """
    for calm in range(4):
        image, items = _attempt(plan, calm)
        if items and items[0]["row"] == 0 and _shows_enough(items[0], image.shape[0] * image.shape[1]):
            break
    quality = 72 if plan.is_consumer else 88
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    annotation: dict[str, Any] = {"source": "user" if plan.is_consumer else "shop", "pair_id": plan.pair_id}
    for number, item in enumerate(items, 1):
        annotation[f"item{number}"] = {name: value for name, value in item.items() if name != "row"}
    return _marked(encoded.tobytes()), annotation


def _marked(jpeg: bytes) -> bytes:
    """The file with a comment that says what it is, behind the JFIF header."""
    end_of_header = 4 + int.from_bytes(jpeg[4:6], "big")
    comment = b"\xff\xfe" + (len(RENDERED_COMMENT) + 2).to_bytes(2, "big") + RENDERED_COMMENT
    return jpeg[:end_of_header] + comment + jpeg[end_of_header:]


def _shows_enough(item: dict[str, Any], num_pixels: int) -> bool:
    x1, y1, x2, y2 = item["bounding_box"]
    marks = item["landmarks"][2::3]
    seen = sum(v == 2 for v in marks) / len(marks)
    return bool((x2 - x1) * (y2 - y1) > 0.07 * num_pixels and seen > 0.42 and item["occlusion"] < 3)
