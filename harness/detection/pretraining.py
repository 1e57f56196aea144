"""A backbone that has learnt garments from their crops, for detectors to begin with.

The full-scale detectors begin with backbones that classified ImageNet; without anything of the
kind, some thousand small photos are too few to learn 13 categories from. Classifying crops sees
every garment at a quarter of the cost of a detector's step: on rendered data 25,000 crops (40 s of
one thread) give 68 % right categories on validation, where a detector trained from random weights
for 60 s names 46 % of the garments that it locates. Detectors of the same backbone share one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from harness.artifacts import file_sha256
from harness.data.photos import decode_rgb
from harness.detection.bridge import Network
from harness.detection.configs import load_model_config, merged
from harness.detection.dataset import has_area
from harness.detection.module import learning_rate_factor, make_optimiser, unfreeze
from harness.detection.recipes import DetectorScale
from harness.detection.settings import Optimiser, Pretraining
from harness.training.cards import CARD_FILE, WEIGHTS_FILE, TrainedOn, write_text
from harness.training.fitting import FitSettings, StepSampler, fit, shuffled_batches, step_seed
from harness.types import CATEGORIES, Floats, Ints, Split

_CONTEXT = 1.4
"""Side of a crop's window over the longer side of its box."""

_SLACK = 1.25
"""Crops are kept this much larger than they are shown, to be shifted at random."""

_SEED_PLACE = 3
"""Keeps these random numbers apart from those of shuffles, augmentation and proposals."""


def pretrained_backbone(scale: DetectorScale, split: Split, image_ids: Ints, home: Path, seed: int) -> Path:
    """Weights of the recipe's backbone, trained on the crops of the given photos' garments.

    They are made once for each backbone, photos, settings and seed; who comes second waits.

    Args:
        scale: the recipe's settings, with ``pretraining``.
        split: with annotations.
        image_ids: (P,) photos, each with at least one item.
        home: a folder for the backbones of several detectors.
        seed: of weights, order and changes of the crops.

    Returns:
        A file of weights for ``backbone.*``.
    """
    from filelock import FileLock

    assert scale.pretraining is not None
    model = merged(load_model_config(scale.config), scale.model)
    facts = {
        "backbone": model["backbone"],
        "pixels": {name: model["data_preprocessor"].get(name) for name in ("mean", "std", "bgr_to_rgb")},
        "pretraining": scale.pretraining.model_dump(mode="json"),
        "trained_on": TrainedOn.of(split, image_ids).model_dump(mode="json"),
        "seed": seed,
    }
    # Where the weights of a config would come from is no part of the backbone: they are not used.
    facts["backbone"].pop("init_cfg", None)
    key = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
    folder = home / key
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / WEIGHTS_FILE
    with FileLock(folder / "lock"):
        if _is_whole(folder):
            return weights
        began = time.perf_counter()
        _train(scale, scale.pretraining, split, image_ids, folder, seed)
        seconds = time.perf_counter() - began
        card = {**facts, "kind": "backbone", "seconds": seconds, "weights_sha256": file_sha256(weights)}
        write_text(folder / CARD_FILE, json.dumps(card, indent=1, default=str))
    return weights


def _is_whole(folder: Path) -> bool:
    card, weights = folder / CARD_FILE, folder / WEIGHTS_FILE
    return (
        card.is_file()
        and weights.is_file()
        and bool(json.loads(card.read_bytes())["weights_sha256"] == file_sha256(weights))
    )


def _train(scale: DetectorScale, settings: Pretraining, split: Split, image_ids: Ints, folder: Path, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(scale.config, scale.model)
        network.initialise()
        unfreeze(network)
        module = CropClassifier(network, scale, settings)
    crops = Crops(split, image_ids, settings.crop_px, seed, network.padding_rgb)
    draw = shuffled_batches(len(crops), settings.batch_size, seed)

    def make_loader(first_step: int) -> DataLoader[Any]:
        sampler = StepSampler(draw, settings.num_steps, first_step)
        return DataLoader(crops, batch_sampler=sampler, collate_fn=crops.collate)  # type: ignore[arg-type]

    fit(
        module,
        make_loader,
        FitSettings(settings.num_steps, seed, gradient_clip=scale.gradient_clip, alone=True),
        folder,
    )
    part = folder / (WEIGHTS_FILE + ".part")
    torch.save({f"backbone.{name}": value.cpu() for name, value in module.backbone.state_dict().items()}, part)
    part.replace(folder / WEIGHTS_FILE)


class CropClassifier(pl.LightningModule):
    """A backbone with one linear layer over the means of all its stages that a neck would take.

    Args:
        network: whose backbone to train.
        scale: whose schedule and optimiser are followed.
        settings: the rest.
    """

    def __init__(self, network: Network, scale: DetectorScale, settings: Pretraining) -> None:
        super().__init__()
        self.backbone = network.model.backbone
        self.pixels = [network]  # in a list, so that the rest of the detector is no part of this module
        self.scale, self.settings = scale, settings
        self.backbone.eval()
        with torch.no_grad():
            shown = torch.zeros(1, settings.crop_px, settings.crop_px, 3, dtype=torch.uint8)
            width = self._described(shown).shape[1]
        self.backbone.train()
        self.classify = nn.Linear(width, len(CATEGORIES))

    def _described(self, crops_BHW3: Tensor) -> Tensor:
        stages = self.backbone(self.pixels[0].normalised(crops_BHW3))
        return torch.cat([stage.mean((2, 3)) for stage in stages], dim=1)

    def on_fit_start(self) -> None:
        """Bring the normalisation's constants to the device that trains."""
        self.pixels[0].mean = self.pixels[0].mean.to(self.device)  # type: ignore[operator, union-attr]
        self.pixels[0].std = self.pixels[0].std.to(self.device)  # type: ignore[operator, union-attr]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy with smoothed labels."""
        crops, labels = batch
        loss = nn.functional.cross_entropy(self.classify(self._described(crops)), labels, label_smoothing=0.1)
        self.log("loss/categories", loss.detach(), batch_size=len(labels))
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up, then cosine to zero."""
        rate, decay = self.settings.learning_rate, self.settings.weight_decay
        optimiser = make_optimiser(self, Optimiser(kind="adamw", learning_rate=rate, weight_decay=decay))
        cosine = self.scale.model_copy(update={"schedule": "cosine", "warmup_steps": 0, "warmup_fraction": 0.06})
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: learning_rate_factor(cosine, step, self.settings.num_steps)
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Crops(Dataset[tuple[NDArray[np.uint8], int]]):
    """The garments of photos, by (step, row): shifted and flipped at random.

    Args:
        split: with annotations.
        image_ids: (P,) photos.
        crop_px: side of what is shown.
        seed: of shifts and flips.
        padding_rgb: colour outside the photos.
    """

    def __init__(
        self, split: Split, image_ids: Ints, crop_px: int, seed: int, padding_rgb: tuple[int, int, int]
    ) -> None:
        assert split.items is not None
        items = split.items.take(np.isin(split.items.image_ids, image_ids) & has_area(split.items))
        self._crop_px, self._seed = crop_px, seed
        self._kept_px = round(crop_px * _SLACK)
        self._crops = np.empty((len(items), self._kept_px, self._kept_px, 3), np.uint8)
        self._crops[:] = padding_rgb
        self._labels = items.category_ids - 1
        photo, shown = np.empty((0, 0, 3), np.uint8), -1
        for row, image_id in enumerate(items.image_ids):
            if image_id != shown:
                photo, shown = decode_rgb(split.photo_path(int(image_id))), int(image_id)
            _cut(photo, items.boxes_xyxy[row], self._crops[row])

    def __len__(self) -> int:
        return len(self._crops)

    def __getitem__(self, index: tuple[int, int]) -> tuple[NDArray[np.uint8], int]:
        step, row = index
        rng = step_seed(self._seed, _SEED_PLACE, step, row)
        top, left = rng.integers(0, self._kept_px - self._crop_px + 1, 2)
        crop = self._crops[row, top : top + self._crop_px, left : left + self._crop_px]
        return (crop[:, ::-1] if rng.random() < 0.5 else crop), int(self._labels[row])

    def collate(self, examples: Sequence[tuple[NDArray[np.uint8], int]]) -> tuple[Tensor, Tensor]:
        """Crops (B, H, W, 3) uint8 and labels (B,) int64 from 0."""
        crops = np.stack([crop for crop, _ in examples])
        return torch.from_numpy(crops), torch.tensor([label for _, label in examples])


def _cut(photo: NDArray[np.uint8], box_xyxy: Floats, into: NDArray[np.uint8]) -> None:
    """Fill a square with the box's surroundings, its aspect kept; outside the photo nothing is written."""
    px = into.shape[0]
    side = max(box_xyxy[2] - box_xyxy[0], box_xyxy[3] - box_xyxy[1], 1.0) * _CONTEXT
    start = (box_xyxy[:2] + box_xyxy[2:] - side) / 2
    limits = np.array([photo.shape[1], photo.shape[0]])
    first = np.clip(np.floor(start), 0, limits - 1).astype(int)
    last = np.clip(np.ceil(start + side), first + 1, limits).astype(int)
    left, top = np.clip(np.round((first - start) * px / side).astype(int), 0, px - 1)
    width, height = np.clip(np.round((last - first) * px / side).astype(int), 1, px - np.array([left, top]))
    window = photo[first[1] : last[1], first[0] : last[0]]
    into[top : top + height, left : left + width] = cv2.resize(
        window, (int(width), int(height)), interpolation=cv2.INTER_AREA
    )
