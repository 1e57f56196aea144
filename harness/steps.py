"""The post-processing steps of the ensemble language: their names, arguments and order.

dba(5) · dba(5,weights=rank) · dba(5,alpha=3)     every gallery row with its 5 nearest gallery rows
qe(5)  · qe(5,weights=rank)  · qe(5,alpha=3)      every query with its 5 nearest gallery rows
pca(512) · pca(512,fit=train)                     the first 512 principal components
whiten · whiten(512) · whiten(512,fit=train)      components of equal variance, all of them or the first 512
rerank(k1=20,k2=6,lambda=0.3)                     k-reciprocal re-ranking; gives the answers
same_category                                     answers of the query's category before all others; stands last
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Value = int | float | str


@dataclass(frozen=True)
class Argument:
    """One argument of a step.

    Attributes:
        name: as it is written.
        kind: of its value; of a text, one of ``words``.
        default: None if there is none.
        low, high: the range of a number.
        words: what a text may be.
        required: whether the step needs it.
        shown: whether the canonical form has it even if it is the default.
    """

    name: str
    kind: type[int] | type[float] | type[str]
    default: Value | None = None
    low: float = 0
    high: float = 0
    words: tuple[str, ...] = ()
    required: bool = False
    shown: bool = False


GALLERY, SPLIT, TRAIN = "gallery", "split", "train"
"""What a projection is fitted on: shop boxes, all boxes of the split, garments of the training split."""

RERANK = "rerank"
SAME_CATEGORY = "same_category"

_NEIGHBOURS = (
    Argument("k", int, None, 1, 10_000, required=True),
    Argument("weights", str, "plain", words=("plain", "rank")),
    Argument("alpha", float, None, 0, 100),
)
_FIT = Argument("fit", str, GALLERY, words=(GALLERY, SPLIT, TRAIN))

STEPS: dict[str, tuple[Argument, ...]] = {
    RERANK: (
        Argument("k1", int, 20, 1, 10_000, shown=True),
        Argument("k2", int, 6, 1, 10_000, shown=True),
        Argument("lambda", float, 0.3, 0, 1, shown=True),
    ),
    "pca": (Argument("dimensions", int, None, 1, 1_000_000, required=True), _FIT),
    "whiten": (Argument("dimensions", int, None, 1, 1_000_000), _FIT, Argument("shrinkage", float, 0.1, 0, 1)),
    "qe": _NEIGHBOURS,
    "dba": _NEIGHBOURS,
    SAME_CATEGORY: (),
}
"""Name -> what the step takes, in the order in which it may be written without names."""

OF_FEATURES = ("pca", "whiten")
"""Steps that are fitted, and not on the gallery alone if one likes."""

OF_NEIGHBOURS = ("qe", "dba")
"""Steps that mix rows with their neighbours."""


@dataclass(frozen=True)
class Step:
    """One post-processing step.

    Attributes:
        name: one of `STEPS`.
        arguments: in the order of `STEPS`, defaults written out; those without a value are left out.
    """

    name: str
    arguments: tuple[tuple[str, Value], ...] = ()

    def __getitem__(self, argument: str) -> Value:
        """The value of an argument that has one; `KeyError` otherwise."""
        return dict(self.arguments)[argument]

    def get(self, argument: str) -> Value | None:
        """The value of an argument; None where it has none."""
        return dict(self.arguments).get(argument)

    def __str__(self) -> str:
        known = {argument.name: argument for argument in STEPS[self.name]}
        shown = [
            key if argument is None else f"{key}={value_text(argument)}"
            for key, argument in (
                (value_text(value), None) if known[name].required or name == "dimensions" else (name, value)
                for name, value in self.arguments
                if known[name].shown or value != known[name].default
            )
        ]
        return f"{self.name}({','.join(shown)})" if shown else self.name


def misplaced(steps: Sequence[Step]) -> tuple[int, str] | None:
    """The first step that cannot stand where it stands, and why; None if all can.

    Args:
        steps: in the order in which they act.
    """
    for place, step in enumerate(steps):
        after = [later for later in steps[place + 1 :] if later.name != SAME_CATEGORY]
        if step.name == SAME_CATEGORY and place < len(steps) - 1:
            return place, f"{SAME_CATEGORY} sorts the answers, so it stands last"
        if step.name == RERANK and after:
            return place, f"{RERANK} gives the answers, so only {SAME_CATEGORY} may follow it, not {after[0].name}"
        mixed = [earlier for earlier in steps[:place] if earlier.name in OF_NEIGHBOURS]
        if step.get("fit") in (SPLIT, TRAIN) and mixed:
            return place, f"fit={step['fit']} knows nothing of {mixed[0].name}; name {step.name} before it"
        if step.get("alpha") is not None and step.get("weights") != "plain":
            return place, f"{step.name} takes weights or alpha, not both"
    return None


def value_text(value: Value) -> str:
    """A value as it is written."""
    if isinstance(value, str):
        return value
    return str(int(value)) if value == int(value) else repr(float(value))
