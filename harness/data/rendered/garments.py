"""The 13 categories, worn by a body in a given pose.

The landmarks follow DeepFashion2's numbers per category and its walk round the outline: neckline
(or waist), one sleeve and side, hem, the other side and sleeve.
"""

from __future__ import annotations

from harness.data.rendered.lower_wear import lower_wear
from harness.data.rendered.silhouette import Pose, Shape
from harness.data.rendered.upper_wear import upper_wear
from harness.data.rendered.wardrobe import BOTTOMS, Garment

NUM_LANDMARKS: tuple[int, ...] = (25, 33, 31, 39, 15, 15, 10, 14, 8, 29, 37, 19, 19)
"""Landmarks of the categories 1–13, as in DeepFashion2; 294 together."""


def shape_of(garment: Garment, pose: Pose) -> Shape:
    """The garment's silhouette, details and landmarks on a body in this pose.

    Args:
        garment: the identity.
        pose: the body's pose.

    Returns:
        Its shape in body units, with the category's number of landmarks.
    """
    shape = lower_wear(garment, pose) if garment.category_id in BOTTOMS else upper_wear(garment, pose)
    assert len(shape.landmarks) == NUM_LANDMARKS[garment.category_id - 1], garment.category_id
    return shape
