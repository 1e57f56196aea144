"""What `run.py detect` does: the boxes of detectors and fusions over a split, how they were made, how good they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from harness.pipeline import Pipeline
from harness.spec import BoxSource
from harness.types import BoxAP, InputError

if TYPE_CHECKING:
    from harness.detection.inference_settings import InferenceSettings


@dataclass(frozen=True)
class BoxReport:
    """Boxes of one name.

    Attributes:
        name: the box source.
        num_boxes: over the split.
        address: in the store.
        settings: detector -> how it looked at the photos, in words.
        ap: None where the split has no annotations.
        thresholds: what a box budget comes to, the lowest score that is kept: of ``all``, or of each category.
    """

    name: str
    num_boxes: int
    address: str
    settings: Mapping[str, str]
    ap: BoxAP | None
    thresholds: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)


def detect(
    pipeline: Pipeline, names: Sequence[str], settings: InferenceSettings | None = None, *, keep: bool = False
) -> list[BoxReport]:
    """Make the missing boxes of all names in one pass over the photos, and judge them where the split is annotated.

    Args:
        pipeline: over the split.
        names: detectors and fusions.
        settings: how to look at photos, for every detector that is needed; None as was kept, or as its recipe says.
        keep: keep the settings for the needed detectors, for every command from now on; without settings, go back to
            the recipe's.

    Raises:
        InputError: a name is unknown, a detector is not trained, there is nothing to detect, or the file of kept
            settings is damaged.
    """
    from harness.cards import CARD_FILE, read
    from harness.detection.card import DetectorCard
    from harness.detection.inference_settings import InferenceSettings
    from harness.jobs import box_ap_of

    sources = list(dict.fromkeys(pipeline.parse_boxes(name) for name in names))
    for source in sources:
        if not source.detectors:
            raise InputError(f"{source}: is no detector, there is nothing to detect")
    detectors = list(dict.fromkeys(one for source in sources for one in source.detectors))
    if keep:
        pipeline.work.kept_inference()  # before hours of detection: the settings can be laid over it
    if settings is not None or keep:
        pipeline.inference = dict(pipeline.inference) | dict.fromkeys(detectors, settings or InferenceSettings())
    told = {}
    for name in detectors:
        card = read(pipeline.work.model_card("detector", name).folder / CARD_FILE, DetectorCard)
        assert card is not None
        told[name] = pipeline.inference_settings(name).told(card.recipe)
    pipeline.detections_of(detectors)
    if keep:
        pipeline.work.keep_inference({name: pipeline.inference[name].changes for name in detectors})
    reports = []
    for source in sources:
        boxes = pipeline.boxes(source)
        how = {one: told[one] for one in source.detectors}
        ap = box_ap_of(pipeline, source)
        reports.append(
            BoxReport(str(source), len(boxes.detections), boxes.address, how, ap, _thresholds(pipeline, source))
        )
    return reports


def _thresholds(pipeline: Pipeline, source: BoxSource) -> dict[str, float]:
    if source.budget is None:
        return {}
    from harness.detection.budgets import thresholds

    every = pipeline.boxes(BoxSource(source.name)).detections
    found = thresholds(every, source.budget, source.per_category)
    return {"all" if category is None else str(category): score for category, score in found.items()}
