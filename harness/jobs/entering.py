"""What `run.py enter` does: models of the ensemble language that were not trained here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.types import InputError, Split
from harness.workplace import Workplace

if TYPE_CHECKING:
    from harness.detection.entered import EnteredDetector
    from harness.retrieval.entered import EnteredCard


def enter_embeddings(
    work: Workplace,
    name: str,
    vectors: Path,
    boxes: Path,
    split: Split,
    saw: Sequence[Split] = (),
    trained_on: str | None = None,
) -> EnteredCard:
    """Take embeddings that were made elsewhere into the working folder, see `harness.retrieval.entered.enter`.

    Args:
        work: the working folder.
        name: of the model; embeddings of further boxes may be entered under the same name.
        vectors: the file of vectors.
        boxes: the file of boxes, in the same order.
        split: whose photos the boxes are of.
        saw: splits that the model was trained on.
        trained_on: what it was trained on, in words.

    Raises:
        InputError: the name cannot be taken, or a file is wrong.
    """
    from harness.retrieval.entered import enter
    from harness.retrieval.team_recipes import check_name
    from harness.training.cards import TrainedOn

    check_name(name)
    work.refuse_near_name("retriever", name)
    seen = [TrainedOn.of(one, one.photos.image_ids) for one in saw]
    return enter(work.model_folder("retriever", name), name, vectors, boxes, split, saw=seen, trained_on=trained_on)


def enter_detections(
    work: Workplace,
    name: str,
    boxes: Path,
    split: Split,
    saw: Sequence[Split] = (),
    trained_on: str | None = None,
    *,
    hold_out: bool = False,
) -> EnteredDetector:
    """Take detections that were made elsewhere into the working folder, see `harness.detection.entered.enter`.

    Args:
        work: the working folder.
        name: of the detector; boxes of other splits may be entered under the same name.
        boxes: the file of boxes.
        split: whose photos the boxes are of.
        saw: splits that the detector was trained on.
        trained_on: what it was trained on, in words.
        hold_out: of the train split it did not see the held-out pairs, see `harness.training.pairs.held_out_pairs`.

    Raises:
        InputError: the name cannot be taken, the file is wrong, or pairs are held out of a split that it did not see.
    """
    from harness.detection.entered import enter
    from harness.detection.recipes import check_name
    from harness.training.cards import TrainedOn
    from harness.training.pairs import training_ids

    check_name(name)
    work.refuse_near_name("detector", name)
    if hold_out and not any(one.name == "train" for one in saw):
        raise InputError(f"{name}: held-out pairs are some of the train split's, which it is not said to have seen")
    seen = [TrainedOn.of(one, training_ids(one, hold_out and one.name == "train")) for one in saw]
    return enter(work.model_folder("detector", name), name, boxes, split, saw=seen, trained_on=trained_on)
