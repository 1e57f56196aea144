"""What `run.py detect` does: the boxes of detectors and fusions over a split, how they were made, how good they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from harness.pipeline import HISTOGRAM, Pipeline, detectors_of
from harness.spec import BoxSource
from harness.types import BoxAP, InputError

if TYPE_CHECKING:
    from harness.detection.inference_settings import InferenceSettings


@dataclass(frozen=True)
class BoxReport:
    """Boxes of one name.

    Attributes:
        name: of the detector, or ``WBF_n``.
        num_boxes: over the split.
        address: in the store.
        settings: detector -> how it looked at the photos, in words.
        ap: None where the split has no annotations.
    """

    name: str
    num_boxes: int
    address: str
    settings: Mapping[str, str]
    ap: BoxAP | None

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
        InputError: a name is unknown, a detector is not trained, or there is nothing to detect.
    """
    from harness.cards import CARD_FILE, read
    from harness.detection.card import DetectorCard
    from harness.detection.inference_settings import InferenceSettings
    from harness.jobs import box_ap_of

    sources = [pipeline.parse(f"{HISTOGRAM} + {name}").boxes for name in dict.fromkeys(names)]
    members = {source.name: detectors_of(source) for source in sources}
    for name, needed in members.items():
        if not needed:
            raise InputError(f"{name}: is no detector, there is nothing to detect")
    detectors = list(dict.fromkeys(one for needed in members.values() for one in needed))
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
    for name, needed in members.items():
        boxes = pipeline.boxes(BoxSource(name))
        how = {one: told[one] for one in needed}
        reports.append(BoxReport(name, len(boxes.detections), boxes.address, how, box_ap_of(pipeline, name)))
    return reports
