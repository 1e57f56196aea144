"""What was made elsewhere and entered here as a model: its card, and the copies that it speaks of.

The folder of such a model holds a card and copies of what was entered; there are no weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from harness.artifacts import file_sha256
from harness.training.cards import CARD_FILE, WEIGHTS_FILE, TrainedOn, read
from harness.types import InputError

ENTERED = "entered"
"""``kind`` in the card of a model that was entered."""


class Entry(BaseModel):
    """What was entered at one time.

    Attributes:
        split: whose photos the boxes are of.
        fingerprint: of the split.
        num_boxes: M.
        boxes: path of the file that was given.
        identity: SHA-256 over the content.
        boxes_sha256: of the copy of the boxes here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: str
    fingerprint: str
    num_boxes: int = Field(ge=1)
    boxes: str
    identity: str
    boxes_sha256: str

    def path(self, folder: Path, ending: str) -> Path:
        """Where the copy with this ending is."""
        return folder / f"{self.identity[:16]}{ending}"


class EnteredModel(BaseModel):
    """What the folder of an entered model says of itself.

    Attributes:
        name: as in the ensemble language.
        entries: the oldest first.
        trained_on: photos that, as its maker says, the model saw in training.
        trained_on_said: what the maker says of its training, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["entered"] = "entered"
    name: str
    entries: tuple[Entry, ...]
    trained_on: tuple[TrainedOn, ...] = ()
    trained_on_said: str = "unknown"

    @classmethod
    def said(cls, before: Self | None, saw: Sequence[TrainedOn], trained_on: str | None) -> dict[str, Any]:
        """The two fields on training after a further entry.

        Args:
            before: the card until now.
            saw: photos that the model was trained on; these are added to what was said before.
            trained_on: what it was trained on, in words; None for what was said before.
        """
        said = (before.trained_on_said if before else "unknown") if trained_on is None else trained_on
        known = {one.model_dump_json(): one for one in (*(before.trained_on if before else ()), *saw)}
        return {"trained_on": tuple(known.values()), "trained_on_said": said}


Card = TypeVar("Card", bound=EnteredModel)


def read_entered(folder: Path, kind: type[Card], what: str) -> Card:
    """The card of a folder of something that was entered.

    Args:
        folder: of the model.
        kind: the class of the card.
        what: was entered: ``embeddings`` or ``detections``.

    Raises:
        InputError: it is damaged, or that of a model that was trained here.
    """
    if (folder / WEIGHTS_FILE).is_file():
        raise InputError(f"{folder}: is a model with weights of its own; enter {what} under another name")
    try:
        card = read(folder / CARD_FILE, kind)
    except InputError as error:
        raise InputError(
            f"{folder / CARD_FILE}: is damaged or not that of entered {what}; remove the folder, then enter "
            f"again: run.py enter {what}"
        ) from error
    assert card is not None
    return card


def undamaged(path: Path, told: str, what: str) -> Path:
    """The path of a copy, after comparing its SHA-256 with what the card says.

    Raises:
        InputError: the file is missing or damaged.
    """
    if not path.is_file() or file_sha256(path) != told:
        raise InputError(f"{path}: is missing or damaged; enter the {what} again: run.py enter {what}")
    return path


def remove_copies(folder: Path, before: Iterable[Entry], after: Iterable[Entry], endings: Sequence[str]) -> None:
    """Remove copies that no entry needs any more."""
    needed = {one.identity for one in after}
    for left in before:
        if left.identity not in needed:
            for ending in endings:
                left.path(folder, ending).unlink(missing_ok=True)


def identities_of(entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Fingerprint of a split -> SHA-256 over what was entered for it, of the entries in a card as plain JSON."""
    found: dict[str, list[str]] = {}
    for one in entries:
        found.setdefault(str(one["fingerprint"]), []).append(str(one["identity"]))
    return {
        fingerprint: hashlib.sha256(json.dumps(identities).encode()).hexdigest()
        for fingerprint, identities in found.items()
    }
