from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.detection import placement
from harness.detection.settings import Augmentation

GREY = (124, 116, 104)


@pytest.mark.parametrize(
    ("size_wh", "input_px", "fitted", "canvas"),
    [
        ((256, 128), (128, 128), (128, 64), (128, 128)),
        ((468, 624), (1333, 800), (800, 1067), (1344, 800)),
        ((1000, 400), (1333, 800), (1333, 533), (800, 1344)),
        ((1, 500), (96, 96), (1, 96), (96, 96)),
    ],
)
def test_sizes(size_wh, input_px, fitted, canvas):
    assert placement.fitted_size_wh(size_wh, input_px) == fitted
    assert placement.canvas_hw(fitted, input_px) == canvas


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([(96, 96), (1333, 800), (640, 33)]))
def test_a_fitted_photo_is_inside_its_canvas(width, height, input_px):
    fitted = placement.fitted_size_wh((width, height), input_px)
    canvas_h, canvas_w = placement.canvas_hw(fitted, input_px)
    assert 1 <= fitted[0] <= canvas_w
    assert 1 <= fitted[1] <= canvas_h


def painted(box, shape_hw=(96, 72)):
    photo = np.zeros((*shape_hw, 3), np.uint8)
    x1, y1, x2, y2 = box
    photo[y1:y2, x1:x2] = 255
    return photo


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 30), st.integers(4, 40), st.integers(12, 40), st.integers(12, 50))
def test_boxes_and_polygons_follow_the_pixels(seed, x1, y1, width, height):
    box = (x1, y1, x1 + width, y1 + height)
    polygon = np.array([[x1, y1], [x1 + width, y1], [x1 + width, y1 + height], [x1, y1 + height]], float)
    changes = Augmentation(flip=0.5, zoom=(0.7, 1.5), shift=True)
    laid = placement.laid_randomly(
        painted(box),
        np.array([box], float),
        [[polygon]],
        (96, 96),
        (0, 0, 0),
        changes,
        np.random.default_rng(seed),
    )
    assert laid.kept.tolist() == [0]
    ys, xs = np.nonzero(laid.photo[..., 0] > 127)
    seen = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    assert np.abs(seen - laid.boxes_xyxy[0]).max() <= 1.01
    mask = placement.masks_of(laid.polygons, (96, 96))[0] > 0
    bright = laid.photo[..., 0] > 127
    # Zooming rounds each edge by up to a pixel: compare away from edges.
    assert (mask != bright).sum() <= 2.2 * (laid.boxes_xyxy[0, 2:] - laid.boxes_xyxy[0, :2]).sum() + 8


def test_a_crop_that_would_lose_every_item_is_not_made():
    photo = painted((0, 0, 4, 4))
    changes = Augmentation(zoom=(3.0, 3.0), shift=True)
    for seed in range(30):
        laid = placement.laid_randomly(
            photo, np.array([[0.0, 0, 4, 4]]), [], (96, 96), GREY, changes, np.random.default_rng(seed)
        )
        assert len(laid.boxes_xyxy) == 1


def test_colours_change_and_geometry_does_not():
    photo = painted((10, 10, 40, 40))
    changes = Augmentation(brightness=0.3, contrast=0.3, colour=0.3)
    laid = placement.laid_randomly(
        photo, np.array([[10.0, 10, 40, 40]]), [], (96, 96), GREY, changes, np.random.default_rng(1)
    )
    assert laid.boxes_xyxy.tolist() == [[10, 10, 40, 40]]
    assert (laid.photo[:96, :72] != photo).any()


def test_no_changes_lays_it_at_the_top_left():
    photo = np.random.default_rng(0).integers(0, 255, (96, 72, 3), dtype=np.uint8)
    laid = placement.laid_randomly(
        photo, np.array([[1.0, 1, 9, 9]]), [], (96, 96), GREY, Augmentation(), np.random.default_rng(0)
    )
    assert (laid.photo[:, :72] == photo).all()
    assert (laid.photo[:, 72:] == GREY).all()


def test_masks_of_nothing():
    assert placement.masks_of([], (4, 5)).shape == (0, 4, 5)
