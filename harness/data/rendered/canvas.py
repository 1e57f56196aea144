"""The oversampled picture that garments are painted on, and the camera that places them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.data.rendered import scene
from harness.data.rendered.patterns import TILE_PX, cloth, motif_polygons, panel_polygon
from harness.data.rendered.silhouette import Layer, Part, Points, Shape
from harness.data.rendered.wardrobe import Garment

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Camera:
    """From body units to pixels of the canvas.

    Attributes:
        scale: canvas pixels a body unit.
        focus: (2,) body point that comes to the canvas point ``centre``.
        squeeze, bend: how a turned body narrows, and bulges to one side.
        sway, phase: a sideways bend of the body.
        roll: rotation, radians.
        tilt: (2,) perspective, per body unit.
    """

    scale: float
    focus: Points
    centre: Points
    squeeze: float = 1.0
    bend: float = 0.0
    sway: float = 0.0
    phase: float = 0.0
    roll: float = 0.0
    tilt: tuple[float, float] = (0.0, 0.0)

    def place(self, points: Points) -> Points:
        """(M, 2) body points to (M, 2) canvas pixels."""
        x, y = points[:, 0], points[:, 1]
        x = self.squeeze * x + self.bend * x * x + self.sway * np.sin(1.7 * y + self.phase)
        u, v = x - self.focus[0], y - self.focus[1]
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        u, v = cos * u - sin * v, sin * u + cos * v
        depth = np.maximum(1 + self.tilt[0] * u + self.tilt[1] * v, 0.25)
        placed: Points = np.stack([u, v], 1) * (self.scale / depth)[:, None] + self.centre
        return placed


class Canvas:
    """The oversampled picture with its label map and every item's own silhouette."""

    def __init__(self, image: Image, camera: Camera, num_items: int, folds: Image) -> None:
        self.image = image
        self.camera = camera
        self.label: Image = np.zeros(image.shape[:2], np.uint8)
        self.silhouettes: NDArray[np.uint8] = np.zeros((num_items, *image.shape[:2]), np.uint8)
        self.folds = folds

    def blob(self, points: Points, colour: Any) -> None:
        """A plain part of the body."""
        fixed = scene.fixed_point(self.camera.place(points))
        cv2.fillPoly(self.image, [fixed], colour, cv2.LINE_AA, 3)
        cv2.fillPoly(self.label, [fixed], 0, cv2.LINE_8, 3)

    def part(self, item: int, garment: Garment, part: Part) -> None:
        """A piece of cloth of the item (from 1)."""
        pixels = self.camera.place(part.outline)
        height, width = self.label.shape
        x1, y1 = np.floor(pixels.min(0)).astype(int).clip(0, [width, height])
        x2, y2 = (np.ceil(pixels.max(0)).astype(int) + 1).clip(0, [width, height])
        if x1 >= x2 or y1 >= y2:
            return
        corner = np.array([x1, y1])
        mask: Image = np.zeros((y2 - y1, x2 - x1), np.uint8)
        fixed = scene.fixed_point(pixels - corner)
        cv2.fillPoly(mask, [fixed], 255, cv2.LINE_8, 3)
        tile, border = cloth(garment)
        if part.contrast:
            texture: Any = np.empty((*mask.shape, 3), np.uint8)
            texture[:] = garment.palette[garment.panel_colour]
        else:
            cos, sin = np.cos(part.turn), np.sin(part.turn)
            length = 1.0
            if border == cv2.BORDER_REPLICATE:
                length = float(np.ptp(part.outline[:, 1])) if part.layer == "torso" else 1.05
            square = np.array([[0, 0], [1, 0], [1, length], [0, length]])
            frame = self.camera.place(part.origin + square @ np.array([[cos, sin], [-sin, cos]])) - corner
            corners = np.array([[0, 0], [TILE_PX, 0], [TILE_PX, TILE_PX], [0, TILE_PX]], np.float32)
            warp = cv2.getPerspectiveTransform(corners, frame.astype(np.float32))
            texture = cv2.warpPerspective(
                tile, warp, (int(x2 - x1), int(y2 - y1)), flags=cv2.INTER_LINEAR, borderMode=border
            )
        panel = None if part.field is None else panel_polygon(garment, *part.field)
        if panel is not None:
            placed = scene.fixed_point(self.camera.place(panel) - corner)
            cv2.fillPoly(texture, [placed], garment.palette[garment.panel_colour], cv2.LINE_AA, 3)
        texture = scene.multiply(texture, self.folds[y1:y2, x1:x2], part.shade)
        line = tuple(int(v * 0.62) for v in garment.palette[0])
        cv2.polylines(texture, [fixed], True, line, 2, cv2.LINE_AA, 3)
        cv2.copyTo(texture, mask, self.image[y1:y2, x1:x2])
        cv2.fillPoly(self.label, [scene.fixed_point(pixels)], item, cv2.LINE_8, 3)
        cv2.fillPoly(self.silhouettes[item - 1], [scene.fixed_point(pixels)], 1, cv2.LINE_8, 3)

    def details(self, item: int, garment: Garment, shape: Shape, layer: Layer) -> None:
        """Print, seams, trim and buttons of the item."""
        if layer == "torso" and shape.print_at is not None:
            x, y, size = shape.print_at
            for polygon, colour in motif_polygons(garment):
                pixels = self.camera.place(polygon * size + [x, y])
                cv2.fillPoly(self.image, [scene.fixed_point(pixels)], garment.palette[colour], cv2.LINE_AA, 3)
        for stroke in shape.strokes:
            if stroke.layer != layer:
                continue
            shade = 0.7 if stroke.colour == 0 else 1.0
            colour3 = tuple(int(v * shade) for v in garment.palette[stroke.colour])
            fixed = scene.fixed_point(self.camera.place(stroke.points))
            width = max(1, round(stroke.width * self.camera.scale))
            if len(fixed) == 1:
                cv2.circle(self.image, tuple(int(v) for v in fixed[0]), width * 4, colour3, -1, cv2.LINE_AA, 3)
                continue
            cv2.polylines(self.image, [fixed], False, colour3, width, cv2.LINE_AA, 3)
            cv2.polylines(self.label, [fixed], False, item, width, cv2.LINE_8, 3)
            cv2.polylines(self.silhouettes[item - 1], [fixed], False, 1, width, cv2.LINE_8, 3)
