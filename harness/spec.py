"""The ensemble language: ``m1-16 with WBF_5`` and all that can be said beside it.

    ensemble = models [ ("with" | "+") boxes ] { "|" step }
    models   = term { "," term } [ "(w/o" names ")" ]
    term     = name [ "-" last ] [ "*" weight ]         m4 · m1-16 · m1-m16 · m4*0.5
    boxes    = ("WBF_" n | "WBF(" detectors ")" | detector | "GT") [ "@" budget | "(" budget ")" ]
    budget   = number [ "k" | "M" ] [ "/category" ]     126k · 126000 · 126k/category
    step     = name [ "(" arguments ")" ]               rerank(k1=20,k2=6,lambda=0.3) · pca(512) · see `harness.steps`

It reads the paper's own notation (Tables 6 and 7) and writes one canonical form:
``parse(str(ensemble)) == ensemble``. The order in which models are named does not count, since
the similarity of concatenated features is a sum; steps act in the order in which they stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from harness.steps import STEPS, Argument, Step, Value, misplaced, value_text
from harness.types import InputError

PAPER_MODELS: tuple[str, ...] = tuple(f"m{n}" for n in range(18))
"""The retrieval models of the paper's Table 3."""

PAPER_DETECTORS: tuple[str, ...] = (
    "ATSS",
    "CascadeMaskRCNN",
    "CenterNet",
    "RetinaNet-R101-FPN",
    "RetinaNet-X101-FPN",
)
"""The detectors in the order of the paper's Table 5: ``WBF_n`` fuses the first n."""

PER_CATEGORY = "/category"
"""After a box budget: every category keeps the same share of its boxes."""

GROUND_TRUTH = "GT"
DEFAULT_BOXES = "WBF_5"
"""What an ensemble that names no boxes uses: the boxes of the paper's Table 6."""


class SpecError(InputError):
    """A spec that cannot be read; the message marks the place."""

    def __init__(self, text: str, column: int, problem: str) -> None:
        super().__init__(f"ensemble spec, column {column + 1}: {problem}\n  {text}\n  {' ' * column}^")


@dataclass(frozen=True, order=True)
class Member:
    """One retrieval model of an ensemble and the weight of its similarity in the sum (> 0)."""

    model: str
    weight: float = 1.0


@dataclass(frozen=True)
class BoxSource:
    """Where the boxes come from.

    Attributes:
        name: ``GT``, ``WBF_n``, ``WBF(detectors)`` or a detector's name.
        budget: keep at most this many boxes over the split, the best-scored; None for all.
        per_category: the best-scored of each category, the same share of every one.
    """

    name: str
    budget: int | None = None
    per_category: bool = False

    @classmethod
    def of(cls, detectors: Sequence[str]) -> BoxSource:
        """The fusion of these detectors, in this order; ``WBF_n`` where they are the paper's first n."""
        if tuple(detectors) == PAPER_DETECTORS[: len(detectors)]:
            return cls(f"WBF_{len(detectors)}")
        return cls(f"WBF({','.join(detectors)})")

    @property
    def fused(self) -> tuple[str, ...] | None:
        """The detectors that are fused; None for a single detector or the ground truth."""
        if self.name.startswith("WBF_"):
            return PAPER_DETECTORS[: int(self.name[4:])]
        if self.name.startswith("WBF("):
            return tuple(self.name[4:-1].split(","))
        return None

    @property
    def detectors(self) -> tuple[str, ...]:
        """The detectors whose boxes are taken; none for the ground truth."""
        if self.name == GROUND_TRUTH:
            return ()
        return self.fused or (self.name,)

    def __str__(self) -> str:
        if self.budget is None:
            return self.name
        return f"{self.name}@{_budget_text(self.budget)}{PER_CATEGORY if self.per_category else ''}"


@dataclass(frozen=True)
class Ensemble:
    """A parsed spec; hashable, equal to any other way of writing the same ensemble."""

    members: tuple[Member, ...]
    boxes: BoxSource = BoxSource(DEFAULT_BOXES)
    steps: tuple[Step, ...] = ()

    def __str__(self) -> str:
        runs: list[list[Member]] = []
        for member in self.members:
            if runs and _follows(runs[-1][-1], member):
                runs[-1].append(member)
            else:
                runs.append([member])
        terms: list[str] = []
        for run in runs:
            weight = "" if run[0].weight == 1 else f"*{value_text(run[0].weight)}"
            if len(run) >= 3:
                terms.append(f"{run[0].model}-{run[-1].model[1:]}{weight}")
            else:
                terms.extend(f"{member.model}{weight}" for member in run)
        return " | ".join([f"{','.join(terms)} + {self.boxes}", *map(str, self.steps)])


_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.]*")
_BOX_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]*")
_NUMBERED = re.compile(r"([A-Za-z]+)([0-9]+)$")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?|\.[0-9]+([eE][+-]?[0-9]+)?")


def parse(
    text: str,
    *,
    models: Sequence[str] = PAPER_MODELS,
    detectors: Sequence[str] = PAPER_DETECTORS,
) -> Ensemble:
    """The ensemble that a spec describes.

    Args:
        text: a spec in the paper's notation or in canonical form.
        models: the retrieval models that may be named.
        detectors: the detectors that may be named; ``WBF_n`` takes the paper's, whatever else there is.

    Raises:
        SpecError: an unknown name, model or argument, a model named twice, or a syntax error; the
            message marks the place and lists what is possible there.
    """
    return _Parser(text, tuple(models), tuple(detectors)).ensemble()


def parse_boxes(text: str, *, detectors: Sequence[str] = PAPER_DETECTORS) -> BoxSource:
    """The box source that a text names by itself, such as ``WBF_5@126k``.

    Args:
        text: what may stand after ``+`` in a spec.
        detectors: the detectors that may be named.

    Raises:
        SpecError: as `parse`.
    """
    parser = _Parser(text, (), tuple(detectors))
    source = parser.boxes()
    if parser.at < len(text):
        parser.fail("expected a budget, such as @126k, or the end", parser.at)
    return source


class _Parser:
    def __init__(self, text: str, models: tuple[str, ...], detectors: tuple[str, ...]) -> None:
        self.text = text
        self.at = 0
        self.models = models
        self.detectors = detectors

    def ensemble(self) -> Ensemble:
        members = self.members()
        boxes = BoxSource(DEFAULT_BOXES)
        if self.take("+") or self.take_word("with"):
            boxes = self.boxes()
        steps = self.steps()
        if self.at < len(self.text):
            self.fail("expected 'with BOXES', '| STEP' or the end", self.at)
        return Ensemble(members, boxes, steps)

    def members(self) -> tuple[Member, ...]:
        weights: dict[str, float] = {}
        while True:
            start = self.skip()
            names = self.names()
            weight = 1.0
            if self.take("*"):
                place = self.skip()
                weight = self.number()
                if weight == 0:
                    self.fail("a weight must be above 0", place)
            for name in names:
                if name in weights:
                    self.fail(f"{name} is named twice", start)
                weights[name] = weight
            if not self.take(","):
                break
        if self.ahead(r"\(\s*w/o\b"):
            self.take("(")
            self.take_word("w/o")
            while True:
                start = self.skip()
                for name in self.names():
                    if name not in weights:
                        self.fail(f"{name} is left out, but it was not in the ensemble", start)
                    del weights[name]
                if not self.take(","):
                    break
            self.expect(")")
        if not weights:
            self.fail("no model is left in the ensemble", self.at)
        ordered = sorted(weights, key=lambda name: self.models.index(name))
        return tuple(Member(name, weights[name]) for name in ordered)

    def names(self) -> list[str]:
        start = self.skip()
        first = self.match(_NAME)
        if first is None:
            self.fail(f"expected a model; there are {_listed(self.models)}", start)
        if not self.ahead(r"-\s*[A-Za-z]*[0-9]"):
            return [self.known_model(first, start)]
        self.take("-")
        end_at = self.skip()
        last = self.match(re.compile(r"[A-Za-z]*[0-9]+"))
        begin = _NUMBERED.match(first)
        end = re.match(r"([A-Za-z]*)([0-9]+)$", last or "")
        if begin is None or end is None or end[1] not in ("", begin[1]):
            self.fail("a range is written m1-16 or m1-m16", start)
        if int(end[2]) < int(begin[2]):
            self.fail(f"the range {first}-{end[2]} runs backwards", end_at)
        self.known_model(first, start)
        self.known_model(f"{begin[1]}{int(end[2])}", end_at)
        return [self.known_model(f"{begin[1]}{number}", start) for number in range(int(begin[2]), int(end[2]) + 1)]

    def known_model(self, name: str, column: int) -> str:
        if name not in self.models:
            self.fail(f"unknown model '{name}'; there are {_listed(self.models)}", column)
        return name

    def boxes(self) -> BoxSource:
        start = self.skip()
        if self.ahead(r"(?i:WBF)\s*\("):
            source = self.named_fusion()
        else:
            possible = [f"WBF_{n}" for n in range(1, len(PAPER_DETECTORS) + 1)] + [*self.detectors, GROUND_TRUTH]
            source = BoxSource(self.known(possible, "boxes", [*possible, "WBF(DETECTOR,DETECTOR,…)"]))
        budget, per_category = None, False
        if self.take("@"):
            budget, per_category = self.budget()
        elif self.take("("):
            budget, per_category = self.budget()
            self.expect(")")
        if budget is not None and source.name == GROUND_TRUTH:
            self.fail("ground-truth boxes have no scores, so no budget can choose among them", start)
        return BoxSource(source.name, budget, per_category)

    def named_fusion(self) -> BoxSource:
        self.match(re.compile("(?i:WBF)"))
        self.expect("(")
        names: list[str] = []
        while True:
            place = self.skip()
            name = self.known(self.detectors, "detector", self.detectors)
            if name in names:
                self.fail(f"{name} is named twice", place)
            names.append(name)
            if not self.take(","):
                break
        self.expect(")")
        return BoxSource.of(sorted(names, key=self.detectors.index))

    def known(self, possible: Sequence[str], what: str, shown: Sequence[str]) -> str:
        start = self.skip()
        written = self.match(_BOX_NAME)
        exact = [name for name in possible if name == written]
        found = exact or [name for name in possible if name.lower() == (written or "").lower()]
        if not found:
            problem = f"unknown {what} '{written}'" if written else f"expected {what}"
            self.fail(f"{problem}; there are {', '.join(shown)}", start)
        return found[0]

    def budget(self) -> tuple[int, bool]:
        start = self.skip()
        number = self.number()
        unit = self.match(re.compile(r"[kM]\b"))
        budget = round(number * {"k": 1000, "M": 1_000_000, None: 1}[unit], 6)
        if budget < 1 or budget != int(budget):
            self.fail("a box budget is a whole number of boxes, such as 126k", start)
        per_category = self.take("/")
        if per_category and not self.take_word("category"):
            self.fail(f"expected 'category', as in 126k{PER_CATEGORY}", self.at)
        return int(budget), per_category

    def steps(self) -> tuple[Step, ...]:
        found: list[Step] = []
        places: list[int] = []
        while self.take("|"):
            places.append(self.skip())
            found.append(self.step())
        wrong = misplaced(found)
        if wrong is not None:
            self.fail(wrong[1], places[wrong[0]])
        return tuple(found)

    def step(self) -> Step:
        start = self.skip()
        name = self.match(_NAME)
        if name not in STEPS:
            what = f"unknown step '{name}'" if name else "expected a step"
            self.fail(f"{what}; there are {', '.join(STEPS)}", start)
        known = {argument.name: argument for argument in STEPS[name]}
        given: dict[str, Value] = {}
        if self.take("("):
            while not self.take(")"):
                self.argument(name, known, given)
                if not self.take(","):
                    self.expect(")")
                    break
        for argument in known.values():
            if argument.name not in given:
                if argument.required:
                    self.fail(f"{name} needs its {argument.name}, as in {name}(5)", start)
                if argument.default is not None:
                    given[argument.name] = argument.default
        return Step(name, tuple((key, given[key]) for key in known if key in given))

    def argument(self, step: str, known: dict[str, Argument], given: dict[str, Value]) -> None:
        start = self.skip()
        if self.ahead(r"[A-Za-z]"):
            key = self.match(_NAME) or ""
            if key not in known:
                self.fail(f"{step} has no argument '{key}'; it takes {_listed(tuple(known)) or 'none'}", start)
            self.expect("=")
        else:
            left = [key for key in known if key not in given]
            if not left:
                self.fail(f"{step} takes {len(known)} arguments: {', '.join(known) or 'none'}", start)
            key = left[0]
        if key in given:
            self.fail(f"{key} is given twice", start)
        given[key] = self.value(known[key])

    def value(self, argument: Argument) -> Value:
        place = self.skip()
        if argument.kind is str:
            word = self.match(_NAME) or ""
            if word not in argument.words:
                self.fail(f"{argument.name} is one of {', '.join(argument.words)}", place)
            return word
        value = self.number()
        if argument.kind is int and value != int(value):
            self.fail(f"{argument.name} is a whole number", place)
        if not argument.low <= value <= argument.high:
            low, high = value_text(argument.low), value_text(argument.high)
            self.fail(f"{argument.name} is from {low} to {high}", place)
        return argument.kind(value)

    def number(self) -> float:
        start = self.skip()
        text = self.match(_NUMBER)
        if text is None:
            self.fail("expected a number", start)
        if float(text) == float("inf"):
            self.fail("that number is too large", start)
        return float(text)

    def skip(self) -> int:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.at

    def ahead(self, pattern: str) -> bool:
        self.skip()
        return re.compile(pattern).match(self.text, self.at) is not None

    def match(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self.text, self.skip())
        if found is None:
            return None
        self.at = found.end()
        self.skip()
        return found[0]

    def take(self, symbol: str) -> bool:
        if not self.text.startswith(symbol, self.skip()):
            return False
        self.at += len(symbol)
        self.skip()
        return True

    def take_word(self, word: str) -> bool:
        return self.match(re.compile(re.escape(word) + r"\b")) is not None

    def expect(self, symbol: str) -> None:
        if not self.take(symbol):
            self.fail(f"expected '{symbol}'", self.at)

    def fail(self, problem: str, column: int) -> NoReturn:
        raise SpecError(self.text, column, problem)


def _follows(before: Member, after: Member) -> bool:
    one, two = _NUMBERED.match(before.model), _NUMBERED.match(after.model)
    if one is None or two is None or before.weight != after.weight:
        return False
    return len(one[1]) == 1 and one[1] == two[1] and int(two[2]) == int(one[2]) + 1


def _budget_text(budget: int) -> str:
    return f"{budget // 1000}k" if budget % 1000 == 0 else str(budget)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
