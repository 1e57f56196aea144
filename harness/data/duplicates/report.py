"""What de-duplication found: counts, and an example of each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class SourceCopies:
    """What went from one source; ``num_garments`` is ``num_kept`` and the five counts of what was taken out.

    Attributes:
        source: its name.
        num_garments: before.
        num_kept: after.
        num_unreadable: taken out because the photo cannot be decoded.
        num_same_item: taken out as a further copy of a crop of the same item.
        num_other_item: taken out because the same crop stands for another item of the source, which was kept.
        num_across: taken out as a copy of a crop of an earlier source; the items became one.
        num_left_out: taken out as a copy of a crop that is guarded.
        num_guarded: copies of crops that are guarded, whether taken out or not.
        examples: kind (``unreadable``, ``same item``, ``other item``, ``across``, ``guarded``) -> the first of them.
    """

    source: str
    num_garments: int
    num_kept: int
    num_unreadable: int
    num_same_item: int
    num_other_item: int
    num_across: int
    num_left_out: int
    num_guarded: int
    examples: dict[str, str]


@dataclass(frozen=True)
class SharedCrops:
    """Copies that two sources have in common.

    Attributes:
        kept_in, taken_from: the sources; the earlier one keeps its crop.
        count: crops taken out of the later one.
    """

    kept_in: str
    taken_from: str
    count: int


@dataclass(frozen=True)
class DuplicateReport:
    """What de-duplication did.

    Attributes:
        sources: a row each, in the order given.
        guard: names of what is guarded, such as the validation split.
        shared: pairs of sources with copies of one another.
        num_identities_before: different items of all sources, counted apart.
        num_identities_after: different items among what was kept, items of several sources counted once.
        num_joined_within: items of one source that became one because another source has photos of both under one item.
        kept_sha256: of which rows of every part were kept, and which items they show: equal for equal training data.
    """

    sources: tuple[SourceCopies, ...]
    guard: tuple[str, ...]
    shared: tuple[SharedCrops, ...]
    num_identities_before: int
    num_identities_after: int
    num_joined_within: int
    kept_sha256: str

    def as_json(self) -> dict[str, Any]:
        """The same as numbers, texts, lists and objects."""
        return asdict(self)
