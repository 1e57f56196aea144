"""What `run.py detect` does: the boxes of detectors and fusions over a split, how they were made, how good they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from harness.pipeline import Pipeline
from harness.spec import BoxSource
from harness.types import BoxAP, InputError

if TYPE_CHECKING:
    from harness.detection.fusion import FusionSettings
    from harness.detection.inference_settings import InferenceSettings


@dataclass(frozen=True)
class BoxReport:
    """Boxes of one name.

    Attributes:
        name: the box source.
        num_boxes: over the split.
        address: in the store.
        settings: detector -> how it looked at the photos, in words.
        fusion: settings of the fusion; None where nothing is fused.
        ap: None where the split has no annotations.
        thresholds: what a box budget comes to, the lowest score that is kept: of ``all``, or of each category.
    """

    name: str
    num_boxes: int
    address: str
    settings: Mapping[str, str]
    fusion: Mapping[str, Any] | None
    ap: BoxAP | None
    thresholds: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)


def detect(
    pipeline: Pipeline,
    names: Sequence[str],
    settings: InferenceSettings | None = None,
    fusion: FusionSettings | None = None,
    *,
    keep: bool = False,
) -> list[BoxReport]:
    """Make the missing boxes of all names in one pass over the photos, and judge them where the split is annotated.

    Args:
        pipeline: over the split.
        names: detectors and fusions.
        settings: how to look at photos, for every detector that is needed; None as was kept, or as its recipe says.
        fusion: how to fuse, for every fusion that is named; None as was kept, or by the defaults.
        keep: keep what is given of both for every command from now on; where neither is, let the needed detectors look
            as their recipes say again.

    Raises:
        InputError: a name is unknown, a detector is not trained, there is nothing to detect, or the file of kept
            settings is damaged.
    """
    from harness.detection.card import DetectorCard
    from harness.detection.inference_settings import InferenceSettings
    from harness.training.cards import CARD_FILE, read

    sources = list(dict.fromkeys(pipeline.parse_boxes(name) for name in names))
    for source in sources:
        if not source.detectors:
            raise InputError(f"{source}: is no detector, there is nothing to detect")
    detectors = list(dict.fromkeys(one for source in sources for one in source.detectors))
    fusions = {source.name: fusion for source in sources if source.fused is not None and fusion is not None}
    for name, chosen in fusions.items():
        _check_number(name, chosen, len(BoxSource(name).detectors))
    if fusion is not None and not fusions:
        raise InputError(f"{', '.join(names)}: nothing is fused, so there is nothing to fuse otherwise")
    pipeline.fusions = dict(pipeline.fusions) | fusions
    if keep:  # before hours of detection: the settings can be laid over what is kept
        pipeline.work.kept_inference()
        pipeline.work.every_fitted_fusion()
    cards = {name: pipeline.work.model_card("detector", name) for name in detectors}
    entered = [name for name, card in cards.items() if card.is_entered]
    free = [name for name in detectors if name not in entered]
    if entered and (settings is not None or (keep and not free and fusion is None)):
        raise InputError(
            f"{', '.join(entered)}: the boxes were made elsewhere, so nothing can be set of how they are made; set "
            "what is wanted of the others by themselves and keep it: run.py detect NAME … --keep"
        )
    if settings is not None or (keep and fusion is None):
        pipeline.inference = dict(pipeline.inference) | dict.fromkeys(free, settings or InferenceSettings())
    told = {name: f"made elsewhere, {_entry_in_words(pipeline, name)}" for name in entered}
    for name in free:
        card = read(cards[name].folder / CARD_FILE, DetectorCard)
        assert card is not None
        told[name] = pipeline.inference_settings(name).told(card.recipe)
    pipeline.detections_of(detectors)
    if keep:
        looks = {name: pipeline.inference[name].changes for name in free if name in pipeline.inference}
        pipeline.work.keep_inference(looks)
        kept = {name: {"settings": chosen.model_dump(mode="json")} for name, chosen in fusions.items()}
        pipeline.work.keep_fusions(kept)
    reports = []
    for source in sources:
        boxes = pipeline.boxes(source)
        how = {one: told[one] for one in source.detectors}
        fused = pipeline.fusion_settings(source).model_dump(mode="json") if source.fused is not None else None
        reports.append(
            BoxReport(
                name=str(source),
                num_boxes=len(boxes.detections),
                address=boxes.address,
                settings=how,
                fusion=fused,
                ap=box_ap_of(pipeline, source),
                thresholds=_thresholds(pipeline, source),
            )
        )
    return reports


def _entry_in_words(pipeline: Pipeline, name: str) -> str:
    from harness.detection.entered import find_boxes

    entry = find_boxes(pipeline.work.model_folder("detector", name), pipeline.split).entry
    return f"{entry.num_boxes:,} boxes from {entry.boxes}; {entry.num_empty:,} of {entry.num_photos:,} photos have none"


def _check_number(name: str, settings: FusionSettings, num_detectors: int) -> None:
    if settings.weights is not None and len(settings.weights) != num_detectors:
        raise InputError(f"{name}: weights: expected {num_detectors}, one a detector, got {len(settings.weights)}")


def _thresholds(pipeline: Pipeline, source: BoxSource) -> dict[str, float]:
    if source.budget is None:
        return {}
    from harness.detection.budgets import thresholds

    every = pipeline.boxes(BoxSource(source.name)).detections
    found = thresholds(every, source.budget, source.per_category)
    return {"all" if category is None else str(category): score for category, score in found.items()}


def box_ap_of(pipeline: Pipeline, source: BoxSource) -> BoxAP | None:
    """Box AP of a box source; None where the split has no annotations."""
    from harness.scoring.boxes import box_ap

    if pipeline.split.items is None:
        return None
    return box_ap(pipeline.split.items, pipeline.boxes(source).detections, pipeline.image_ids)
