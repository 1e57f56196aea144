"""What a posed garment is made of: the body's pose, pieces of cloth, seams, landmarks.

Body units: the shoulders are at y = 0, the hips at about y = 1, x is 0 in the middle, y points down.
Side -1 is the left of the picture, +1 the right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Layer = Literal["torso", "sleeve"]

SHOULDER_X = 0.34
_HIP_X = 0.17


@dataclass(frozen=True)
class Pose:
    """How a body (or a garment laid flat) is arranged.

    Attributes:
        upper, lower: angles of the upper arm and forearm from straight down, radians, outward
            positive; picture left, then right.
        stride: how far each foot stands out, body units.
        back: seen from behind.
        flat: laid out without a body.
    """

    upper: tuple[float, float]
    lower: tuple[float, float]
    stride: tuple[float, float]
    back: bool = False
    flat: bool = False

    def arm(self, side: int) -> Points:
        """(3, 2) shoulder, elbow and wrist."""
        k = (side + 1) // 2
        shoulder = np.array([side * SHOULDER_X, 0.1])
        elbow = shoulder + 0.56 * np.array([side * np.sin(self.upper[k]), np.cos(self.upper[k])])
        wrist = elbow + 0.52 * np.array([side * np.sin(self.lower[k]), np.cos(self.lower[k])])
        return np.array([shoulder, elbow, wrist])

    def leg(self, side: int) -> Points:
        """(3, 2) hip, knee and ankle."""
        k = (side + 1) // 2
        foot = side * (_HIP_X + self.stride[k])
        return np.array([[side * _HIP_X, 1.05], [(side * _HIP_X + foot) / 2 + side * 0.02, 1.82], [foot, 2.55]])


@dataclass
class Part:
    """One piece of cloth: where it is and how the cloth lies on it.

    Attributes:
        outline: (M, 2) body units.
        origin, turn: where the cloth's corner lies, and its rotation in radians.
        layer: sleeves are drawn over bare arms, torsos under them.
        contrast: drawn in the garment's panel colour instead of the cloth.
        field: heights between which the garment's panel is laid out, if it has one here.
        shade: factor on the brightness.
    """

    outline: Points
    origin: Points
    turn: float = 0.0
    layer: Layer = "torso"
    contrast: bool = False
    shade: float = 1.0
    field: tuple[float, float] | None = None


@dataclass
class Stroke:
    """A seam, trim or button on a garment: a polyline (one point: a disc) of a width in body units."""

    points: Points
    width: float
    colour: int
    layer: Layer = "torso"


@dataclass
class Shape:
    """A posed garment: its pieces in drawing order, its details, its landmarks.

    Attributes:
        landmarks: (L, 2) body units, L the category's number.
        print_at: centre and half size of the print, if it shows.
    """

    parts: list[Part]
    landmarks: Points
    strokes: list[Stroke] = field(default_factory=list)
    print_at: tuple[float, float, float] | None = None


def along(path: Points, shares: Any) -> Points:
    """Points at the given shares of a polyline's length; beyond 1 it goes on straight."""
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    marks = np.concatenate([[0], np.cumsum(steps)]) / steps.sum()
    shares = np.atleast_1d(np.asarray(shares, dtype=float))
    return np.stack([np.interp(shares, marks, path[:, axis]) for axis in (0, 1)], 1)


def tube(path: Points, half_widths: Any, side: int) -> tuple[Points, Points]:
    """The outer and the inner edge of a limb: the path, moved sideways by its half widths."""
    tangents = np.gradient(path, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    normals = np.stack([tangents[:, 1], -tangents[:, 0]], 1) * side * np.asarray(half_widths)[:, None]
    return path + normals, path - normals
