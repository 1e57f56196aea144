"""The stages from photos to boxes: detection, fusion, budgets.

Every stage asks the store first and runs only what is missing. What decides a stage's result is in
its recipe; raise the stage's version here whenever its arithmetic changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.artifacts import Draft, Recipe, Store, write_detections
from harness.progress import Reporter, silent
from harness.shards import DetectorToRun, Resources, detect_in_shards, in_order
from harness.spec import GROUND_TRUTH, PAPER_DETECTORS, BoxSource, parse_boxes
from harness.timing import Stopwatch, stages_of_pass
from harness.types import Detections, InputError, Ints, Split
from harness.workplace import Workplace

if TYPE_CHECKING:
    from harness.detection.fusion import FusionSettings
    from harness.detection.inference_settings import InferenceSettings

DETECT_VERSION = 2
FUSE_VERSION = 1


@dataclass(frozen=True, eq=False)
class BoxSet:
    """Boxes of a split.

    Attributes:
        detections: by ascending image id, best score first.
        address: of what decides them.
        source: as the ensemble language names them.
        whole: the boxes that a budget chose these from; None where there was none.
    """

    detections: Detections
    address: str
    source: str
    whole: BoxSet | None = None


class BoxStages:
    """The stages from photos to boxes, over one split of one data set in one working folder.

    Args:
        work: where models and results are.
        split: the photos.
        image_ids: the photos to use; None for all of the split.
        report: where progress is shown.
        stopwatch: collects the stages' times.
        inference: detector -> how it looks at photos, instead of what was kept in the working folder.
        fusions: fusion -> how its boxes are fused, instead of what was kept in the working folder.
        resources: what detection and embedding may use.
        store: of results; None for that of the working folder.
    """

    def __init__(
        self,
        work: Workplace,
        split: Split,
        *,
        image_ids: Ints | None = None,
        report: Reporter = silent,
        stopwatch: Stopwatch | None = None,
        inference: Mapping[str, InferenceSettings] | None = None,
        fusions: Mapping[str, FusionSettings] | None = None,
        resources: Resources | None = None,
        store: Store | None = None,
    ) -> None:
        self.work = work
        self.store = store or work.store
        self.split = split
        self.image_ids = split.photos.image_ids if image_ids is None else np.sort(image_ids)
        self.report = report
        self.stopwatch = stopwatch or Stopwatch()
        self.inference = inference or {}
        self.fusions = fusions or {}
        self.resources = resources or Resources()

    def boxes(self, source: BoxSource) -> BoxSet:
        """The boxes that an ensemble's box source stands for, detected and fused as far as missing."""
        if source.name == GROUND_TRUTH:
            return self._ground_truth()
        found = self.detections(source.name) if source.fused is None else self.fused(source)
        if source.budget is None or source.budget >= len(found.detections):
            return found
        from harness.detection.budgets import keep_best

        kept = keep_best(found.detections, source.budget, source.per_category)
        parts = (found.address, source.budget, *(["category"] if source.per_category else []))
        return BoxSet(in_order(kept), digest(*parts), str(source), found)

    def detections(self, name: str) -> BoxSet:
        """One detector's boxes."""
        return self.detections_of([name])[name]

    def detections_of(self, names: Sequence[str]) -> dict[str, BoxSet]:
        """The boxes of every named detector; the missing ones in one pass over the photos."""
        from harness.detection.entered import find_boxes

        cards = {name: self.work.model_card("detector", name) for name in names}
        entered = {name: find_boxes(card.folder, self.split) for name, card in cards.items() if card.is_entered}
        recipes, missing = {}, {}
        for name, card in cards.items():
            inputs, checkpoints = {"data": self.data_address}, {card.name: card.identity}
            if name in entered:
                recipes[name] = Recipe("detect", DETECT_VERSION, {}, inputs, {card.name: entered[name].identity})
                continue
            settings = self.inference_settings(name)
            recipes[name] = Recipe("detect", DETECT_VERSION, settings.changes, inputs, checkpoints)
            identity = digest(DETECT_VERSION, sorted(settings.changes.items()), card.identity)
            missing[name] = DetectorToRun(card.folder, settings, identity)

        def make(drafts: Mapping[str, Draft]) -> dict[str, dict[str, Any]]:
            facts = {}
            for name in drafts.keys() & entered.keys():
                boxes = in_order(entered[name].read(self.image_ids))
                drafts[name].write("boxes.parquet", partial(write_detections, detections=boxes))
                facts[name] = entered[name].facts(boxes, self.image_ids)
            rest = {name: draft for name, draft in drafts.items() if name not in entered}
            return facts | detect_in_shards(rest, missing, self.split, self.image_ids, self.report, self.resources)

        together = Stopwatch()
        with together.stage("detect") as clock:
            artifacts, made = self.store.get_many(recipes, make)
        by_stage = {f"detect {name}": artifact for name, artifact in artifacts.items()}
        now, count = {f"detect {name}" for name in made}, len(self.image_ids)
        self.stopwatch.stages += stages_of_pass(by_stage, now, clock.seconds, "decode", "photos", count)
        return {name: BoxSet(one.detections(), one.address, name) for name, one in artifacts.items()}

    def inference_settings(self, name: str) -> InferenceSettings:
        """How a detector looks at photos: as this pipeline was told, as was kept in the working folder, or plainly.

        Raises:
            InputError: the file of kept settings is damaged.
        """
        from harness.detection.inference_settings import InferenceSettings

        if name in self.inference:
            return self.inference[name]
        try:
            return InferenceSettings(**self.work.kept_inference().get(name, {}))
        except ValueError as error:
            raise self.work.damaged_inference(f"{name}: {error}") from error

    def fused(self, source: BoxSource) -> BoxSet:
        """The fused boxes of several detectors, ``WBF_n`` or ``WBF(detectors)``."""
        from harness.detection.fusion import fuse

        parts = list(self.detections_of(source.detectors).values())
        chosen = self.fusion_settings(source)
        recipe = Recipe(
            "fuse",
            FUSE_VERSION,
            {"settings": chosen.model_dump(mode="json")},
            {f"detector {index}": part.address for index, part in enumerate(parts)} | {"data": self.data_address},
        )

        def make(draft: Draft) -> dict[str, Any]:
            sizes = self.photo_sizes()
            # Boxes that were made elsewhere may stick out of their photos, which fusion refuses.
            fused = in_order(fuse([within_photos(part.detections, sizes) for part in parts], sizes, chosen))
            draft.write("boxes.parquet", partial(write_detections, detections=fused))
            return {"boxes": len(fused)}

        with self.stopwatch.stage(f"fuse {source.name}", "photos") as clock:
            artifact, made = self.store.get(recipe, make)
            clock.note([artifact], made, len(self.image_ids))
        return BoxSet(artifact.detections(), artifact.address, source.name)

    def fusion_settings(self, source: BoxSource) -> FusionSettings:
        """How a fusion's boxes are fused: as this pipeline was told, as was kept in the working folder, or plainly.

        Raises:
            InputError: the file of kept settings is damaged, or they were fitted for a detector that was trained anew.
        """
        from harness.detection.fusion import FusionSettings

        if source.name in self.fusions:
            return self.fusions[source.name]
        entry = self.work.fitted_fusion(source.name)
        fitted_on = str((entry or {}).get("fitted_on", {}).get("fingerprint"))
        for name, identity in ({} if entry is None else entry.get("detectors", {})).items():
            if self.work.model_card("detector", name).identity_on(fitted_on) != identity:
                raise InputError(
                    f"{self.work.fusion}: the settings of {source.name} were fitted for another {name} than is "
                    "here now; fit them again: run.py tune fusion, or go without: run.py detect "
                    f"'{source.name}' --data DIR --fusion defaults --keep"
                )
        try:
            return FusionSettings() if entry is None else FusionSettings(**entry["settings"])
        except (TypeError, KeyError, ValueError) as error:
            raise self.work.damaged_fusion(error) from error

    def photo_sizes(self) -> dict[int, tuple[int, int]]:
        """(width, height) in pixels of every photo, by image id."""
        from harness.data.photos import photo_size

        return {int(image_id): photo_size(self.split.photo_path(int(image_id))) for image_id in self.image_ids}

    def _ground_truth(self) -> BoxSet:
        if self.split.items is None:
            raise InputError(f"{self.split.root / self.split.name}: has no annotations, so there are no GT boxes")
        rows = np.isin(self.split.items.image_ids, self.image_ids)
        boxes = in_order(self.split.items.as_detections().take(rows))
        return BoxSet(boxes, digest(GROUND_TRUTH, self.data_address), GROUND_TRUTH)

    @property
    def data_address(self) -> str:
        """SHA-256 of the photos that the stages work on: the split's fingerprint and the image ids."""
        return digest(self.split.fingerprint, hashlib.sha256(self.image_ids.tobytes()).hexdigest())

    def parse_boxes(self, text: str) -> BoxSource:
        """A box source by itself, such as ``WBF_5@126k`` or a detector's name."""
        return parse_boxes(text, detectors=detectors_of(self.work))


def detectors_of(work: Workplace) -> tuple[str, ...]:
    """Detectors that a box source may name: the paper's, and whatever a working folder has."""
    return tuple(dict.fromkeys((*PAPER_DETECTORS, *work.trained("detector"))))


def within_photos(boxes: Detections, sizes: Mapping[int, tuple[int, int]]) -> Detections:
    """Boxes cut at the edges of their photos.

    Args:
        boxes: N.
        sizes: image id -> width and height in pixels.
    """
    if len(boxes) == 0:
        return boxes
    image_ids, numbers = np.unique(boxes.image_ids, return_inverse=True)
    ends = np.array([sizes[image_id] for image_id in image_ids.tolist()], np.float64)[numbers]
    return replace(boxes, boxes_xyxy=np.clip(boxes.boxes_xyxy, 0, np.tile(ends, 2)))


def digest(*parts: object) -> str:
    """SHA-256 of some values as text."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()
