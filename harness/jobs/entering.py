"""What `run.py enter` does: models of the ensemble language that were not trained here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.types import Split
from harness.workplace import Workplace

if TYPE_CHECKING:
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
