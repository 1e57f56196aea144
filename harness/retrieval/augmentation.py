"""Random views of training crops, a whole batch at a time on the batch's device.

A canvas is a crop with more context than the finished model sees; its ``view`` is the part that the
model would see, in unit coordinates of the canvas. An augmented image is a window near that view.
Legend: B crops, H W canvas, h w input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from harness.retrieval.settings import AugmentationSettings

_LUMA = (0.299, 0.587, 0.114)
_ERASED = 0.45  # about the mean of photographs


@dataclass(frozen=True)
class Draws:
    """What chance decides of a batch of views, a row a view.

    Attributes:
        zoom, aspect, turn, mirror, contrast, saturation: (B,) float64.
        shift: (B, 2) float64.
        gain: (B, 3) float64, of each colour channel.
        is_blurred: (B,) bool.
        holes: (B, 4) float64, x1 y1 x2 y2 in unit coordinates of the rectangle to erase; an empty one where none is.
    """

    zoom: NDArray[np.float64]
    aspect: NDArray[np.float64]
    shift: NDArray[np.float64]
    turn: NDArray[np.float64]
    mirror: NDArray[np.float64]
    gain: NDArray[np.float64]
    contrast: NDArray[np.float64]
    saturation: NDArray[np.float64]
    is_blurred: NDArray[np.bool_]
    holes: NDArray[np.float64]

    @classmethod
    def of(cls, batch: int, settings: AugmentationSettings, random: np.random.Generator) -> Draws:
        """Draw for a batch of so many views.

        Args:
            batch: B; processes that share a batch draw for all of it and take their rows.
            settings: how far views may differ.
            random: the only source of chance.
        """
        zoom = random.uniform(*settings.zoom, batch)
        aspect = np.exp(0.5 * settings.aspect * random.uniform(-1, 1, batch))
        shift = settings.shift * random.uniform(-1, 1, (batch, 2))
        turn = np.deg2rad(settings.rotation_deg) * random.uniform(-1, 1, batch)
        mirror = np.where(random.random(batch) < settings.flip, -1.0, 1.0)
        brightness = random.uniform(-1, 1, (batch, 1)) * settings.brightness
        gain = np.exp(brightness + random.uniform(-1, 1, (batch, 3)) * settings.white_balance)
        contrast = np.exp(random.uniform(-1, 1, batch) * settings.contrast)
        saturation = np.exp(random.uniform(-1, 1, batch) * settings.saturation)
        is_blurred = random.random(batch) < settings.blur
        holes = _holes(random, batch, settings)
        return cls(zoom, aspect, shift, turn, mirror, gain, contrast, saturation, is_blurred, holes)

    def take(self, rows: slice) -> Draws:
        """The draws of some of the views."""
        return Draws(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def augment(canvases_BHW3: Tensor, views_B4: Tensor, input_wh: tuple[int, int], draws: Draws) -> Tensor:
    """One random view of every canvas.

    Args:
        canvases_BHW3: (B, H, W, 3) uint8.
        views_B4: (B, 4) float32, x1 y1 x2 y2 in [0, 1] of the canvas.
        input_wh: width and height of the result, px.
        draws: what was drawn for these views.

    Returns:
        (B, 3, h, w) float32 in [0, 1].
    """
    batch, device = len(canvases_BHW3), canvases_BHW3.device
    affine = _window_affine(views_B4.cpu().numpy().astype(np.float64), draws)

    def put(values: NDArray[np.generic], *shape: int) -> Tensor:
        kind = np.bool_ if values.dtype == np.bool_ else np.float32
        return torch.from_numpy(values.astype(kind)).to(device, non_blocking=True).view(batch, *shape)

    with torch.autocast(device.type, enabled=False):
        canvases = canvases_BHW3.permute(0, 3, 1, 2).float().div_(255)
        size = [batch, 3, input_wh[1], input_wh[0]]
        grid = functional.affine_grid(put(affine, 2, 3), size, align_corners=False)
        images = functional.grid_sample(canvases, grid, padding_mode="border", align_corners=False)
        smooth = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        images = torch.where(put(draws.is_blurred, 1, 1, 1), smooth, images)
        images = images * put(draws.gain, 3, 1, 1)
        luma = images.new_tensor(_LUMA).view(1, 3, 1, 1)
        grey = (images * luma).sum(dim=1, keepdim=True)
        images = grey + (images - grey) * put(draws.saturation, 1, 1, 1)
        level = grey.mean(dim=(2, 3), keepdim=True)
        images = (level + (images - level) * put(draws.contrast, 1, 1, 1)).clamp_(0, 1)
        return images.masked_fill(_hole_mask(put(draws.holes, 4), input_wh), _ERASED)


def _window_affine(views_B4: NDArray[np.float64], draws: Draws) -> NDArray[np.float64]:
    """(B, 2, 3) matrices from the result's coordinates in [−1, 1] to the canvas's."""
    centre = views_B4[:, :2] + views_B4[:, 2:] - 1  # both in [−1, 1]
    half = views_B4[:, 2:] - views_B4[:, :2]
    half = half * np.stack([draws.zoom * draws.aspect, draws.zoom / draws.aspect], axis=1)
    # The shift is in sides of the window, which span twice the half.
    centre = centre + 2 * half * draws.shift
    turn, mirror = draws.turn, draws.mirror
    affine = np.zeros((len(views_B4), 2, 3))
    affine[:, 0, 0], affine[:, 0, 1] = half[:, 0] * np.cos(turn) * mirror, -half[:, 0] * np.sin(turn)
    affine[:, 1, 0], affine[:, 1, 1] = half[:, 1] * np.sin(turn) * mirror, half[:, 1] * np.cos(turn)
    affine[:, :, 2] = centre
    return affine


def _holes(random: np.random.Generator, batch: int, settings: AugmentationSettings) -> NDArray[np.float64]:
    """(B, 4) x1 y1 x2 y2 in unit coordinates of the rectangle to erase; an empty one where none is."""
    area = random.uniform(*settings.erase_area, batch)
    ratio = np.exp(random.uniform(math.log(0.4), math.log(2.5), batch))
    size = np.minimum(np.stack([np.sqrt(area * ratio), np.sqrt(area / ratio)], axis=1), 1.0)
    corner = random.random((batch, 2)) * (1 - size)
    size[random.random(batch) >= settings.erase] = 0
    return np.concatenate([corner, corner + size], axis=1)


def _hole_mask(holes_B4: Tensor, input_wh: tuple[int, int]) -> Tensor:
    """(B, 1, h, w) bool, True for pixels whose centre lies in the rectangle."""
    xs, ys = ((torch.arange(side, device=holes_B4.device) + 0.5) / side for side in input_wh)
    x1, y1, x2, y2 = (holes_B4[:, side, None] for side in range(4))
    in_x, in_y = (xs >= x1) & (xs < x2), (ys >= y1) & (ys < y2)
    return (in_y[:, :, None] & in_x[:, None, :])[:, None]
