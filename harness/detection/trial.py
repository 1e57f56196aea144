"""A network tried out on two drawn photos, before hours are spent on what it cannot do here."""

from __future__ import annotations

import numpy as np
import torch

from harness.detection.bridge import Network, Targets
from harness.detection.recipes import DetectorScale
from harness.detection.transforms import Transforms
from harness.types import InputError

_SIDE_PX = 352
"""A multiple of 32 and of no larger power of two, like the inputs that come; large enough for DINO's 900 queries."""


def try_out(scale: DetectorScale, where: str) -> None:
    """Build a recipe's network and transforms, let it take one training step's losses, and let it look.

    Args:
        scale: the recipe's settings.
        where: the config's file, for messages.

    Raises:
        InputError: mmdet cannot build it, it is no detector of boxes, or a transform or a step fails or
            is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            network = Network(scale.config, scale.model)
            network.initialise()
            _refuse_other_tasks(network)
            _transform(scale, network.learns_masks)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        photos = torch.zeros(2, _SIDE_PX, _SIDE_PX, 3, dtype=torch.uint8)
        photos[:, 40:180, 60:200] = 200
        masks = np.zeros((1, _SIDE_PX, _SIDE_PX), np.uint8)
        masks[0, 40:180, 60:200] = 1
        box, category = torch.tensor([[60.0, 40, 200, 180]]), torch.tensor([1])
        network.train()
        try:
            losses = network.losses(photos, [Targets(box, category, masks)] * 2)
            loss = torch.stack(list(losses.values())).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            network.only_boxes()
            network.limit(scale.score_threshold, scale.max_per_image)
            network.eval().predict(photos, [(_SIDE_PX, _SIDE_PX)] * 2)
        except Exception as error:  # a network of the user's, which may raise anything
            why = str(error).strip().splitlines()
            raise InputError(
                f"{where}: mmdet builds this network, but it cannot be trained and used here: "
                f"{type(error).__name__}: {why[0] if why else 'no reason given'}"
            ) from error
    if not torch.isfinite(loss):
        told = ", ".join(f"{name} {float(value):g}" for name, value in losses.items())
        raise InputError(f"{where}: the first losses are not finite: {told}")


def _transform(scale: DetectorScale, with_masks: bool) -> None:
    corners = np.array([[60.0, 40], [200, 40], [200, 180], [60, 180]])
    photo = np.full((_SIDE_PX, _SIDE_PX, 3), 128, np.uint8)
    chain = Transforms(scale.transforms or ())
    chain(photo, np.array([[60.0, 40, 200, 180]]), [[corners]] if with_masks else None, np.random.default_rng(0))


def _refuse_other_tasks(network: Network) -> None:
    from mmdet.models.detectors import RPN, MaskFormer, SemiBaseDetector, TwoStagePanopticSegmentor
    from mmdet.models.detectors.base import BaseDetector

    model = network.model
    kind = type(model).__name__
    if isinstance(model, RPN):
        raise InputError(f"{kind} proposes regions without categories; take a detector that is built on it")
    if isinstance(model, MaskFormer | TwoStagePanopticSegmentor):
        raise InputError(f"{kind} segments whole photos (panoptic); take a detector of boxes")
    if isinstance(model, SemiBaseDetector):
        raise InputError(f"{kind} wants photos without annotations; take the detector inside it")
    if hasattr(model, "language_model"):
        raise InputError(f"{kind} reads text beside the photo, which is not supported here")
    if getattr(model, "bbox_head", None) is None and getattr(model, "roi_head", None) is None:
        raise InputError(f"{kind} finds masks without boxes; take a detector of boxes")
    if not isinstance(model, BaseDetector):
        raise InputError(f"{kind} is no detector of boxes in photos")
