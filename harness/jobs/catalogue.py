"""Every recipe of a detector and of a retrieval model, resolved, with its published figure; and what is trained."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from harness.types import InputError
from harness.workplace import ModelKind, Workplace

if TYPE_CHECKING:
    from rich.table import Table

    from harness.detection.recipes import DetectorRecipe
    from harness.retrieval.costs import Costs
    from harness.retrieval.recipes import RetrieverRecipe
    from harness.retrieval.settings import RetrieverSettings


@dataclass(frozen=True)
class Catalogue:
    """All recipes by name, in the paper's order, those of the user's files last."""

    detectors: Mapping[str, DetectorRecipe]
    retrievers: Mapping[str, RetrieverRecipe]

    def named(self, name: str) -> DetectorRecipe | RetrieverRecipe:
        """The recipe of that name, of either kind.

        Raises:
            InputError: there is none; the message lists the names there are.
        """
        if name in self.retrievers:
            return self.retrievers[name]
        if name in self.detectors:
            return self.detectors[name]
        raise InputError(f"unknown model '{name}'; there are {', '.join((*self.detectors, *self.retrievers))}")


def read_catalogue(files: Sequence[Path] = ()) -> Catalogue:
    """The shipped recipes and those of the user's files.

    Args:
        files: TOML files of further detectors (as in ``detectors.toml``) or retrieval models (``models.toml``).

    Raises:
        InputError: a file is wrong, or there are two of one kind.
    """
    from harness.detection.recipes import load_recipes as load_detectors
    from harness.retrieval.recipes import load_recipes as load_retrievers
    from harness.retrieval.team_recipes import read_toml

    kinds: dict[str, Path] = {}
    for path in files:
        kind = "retriever" if {"models", "sources"} & read_toml(path).keys() else "detector"
        if kinds.setdefault(kind, path) != path:
            raise InputError(f"{path}: {kinds[kind]} has {kind}s as well; put them into one file")
    return Catalogue(load_detectors(kinds.get("detector")), load_retrievers(kinds.get("retriever")))


def as_json(catalogue: Catalogue, work: Workplace | None = None, *, with_costs: bool = False) -> dict[str, Any]:
    """All recipes with all settings as JSON values; published figures under names that say so.

    Args:
        catalogue: the recipes.
        work: a working folder; its models come under ``trained``.
        with_costs: add parameters and multiply-adds of the retrieval models at both scales.
    """
    told: dict[str, Any] = {
        "detectors": {name: recipe.model_dump(mode="json") for name, recipe in catalogue.detectors.items()},
        "retrievers": {name: recipe.model_dump(mode="json") for name, recipe in catalogue.retrievers.items()},
    }
    if with_costs:
        known: dict[str, Costs] = {}
        for name, recipe in catalogue.retrievers.items():
            costs = {scale: asdict(costs_of(settings, known)) for scale, settings in _scales(recipe).items()}
            told["retrievers"][name]["costs"] = costs
    if work is not None:
        told["trained"] = {f"{kind}s": trained(work, kind) for kind in get_args(ModelKind)}
    return told


def trained(work: Workplace, kind: ModelKind) -> dict[str, dict[str, Any]]:
    """What each model of a working folder is, and which photos it saw.

    Raises:
        InputError: a card is damaged.
    """
    cards = {name: work.model_card(kind, name) for name in work.trained(kind)}
    return {
        name: {
            "summary": card.summary,
            "trained_on": [dict(photos) for photos in card.trained_on],
            "chosen_on": [dict(photos) for photos in card.chosen_on],
            "rendered": any(photos.get("rendered") for photos in card.trained_on),
            "seconds": card.seconds,
            "weights_sha256": card.weights_sha256,
        }
        for name, card in cards.items()
    }


def costs_of(settings: RetrieverSettings, known: dict[str, Costs]) -> Costs:
    """What embedding a crop costs; networks that are known already are not counted again.

    Args:
        settings: of the model.
        known: networks that were counted; this one is added.
    """
    from harness.retrieval.costs import costs_of as count

    decisive = {"backbone", "backbone_options", "remove_last_stride", "descriptors", "output_dim", "input_wh"}
    key = settings.model_dump_json(include=decisive)
    if key not in known:
        known[key] = count(settings)
    return known[key]


def tables(catalogue: Catalogue, work: Workplace | None = None, *, with_costs: bool = False) -> list[Table | str]:
    """The recipes as tables for the terminal; published figures are of DeepFashion2 validation.

    Args:
        catalogue: the recipes.
        work: a working folder; a table of its models is added.
        with_costs: add parameters and multiply-adds of the retrieval models at full scale.
    """
    shown: list[Table | str] = [_detectors(catalogue), _table_3(catalogue), _settings(catalogue, with_costs)]
    if with_costs:
        shown.append("at full scale; multiply-adds of convolutions and matrix products, for one crop")
    if work is not None:
        shown += [_trained(work)]
    return shown


def _detectors(catalogue: Catalogue) -> Table:
    table = _table(
        "Detectors, in the order in which WBF_n takes them",
        ("name", "mmdet config", "input px", "schedule", "published\nAP50"),
        folded=("mmdet config",),
    )
    for name, detector in catalogue.detectors.items():
        full = detector.full
        length = f"{full.num_epochs:g} epochs" if full.num_epochs is not None else f"{full.num_steps} steps"
        table.add_row(
            name,
            full.config or str(full.model.get("type")),
            f"{full.input_px[0]}×{full.input_px[1]}",
            f"{full.optimiser.kind} {full.optimiser.learning_rate:g}, {length}",
            "–" if detector.published is None else f"{detector.published.ap50:.3f}",
        )
    return table


def _table_3(catalogue: Catalogue) -> Table:
    table = _table(
        "\nRetrieval models (Table 3)",
        ("name", "description", "trained on", "published\nAcc@10"),
        folded=("description", "trained on"),
    )
    for name, recipe in catalogue.retrievers.items():
        table.add_row(
            name,
            # A row of sources is one word, which would break anywhere.
            re.sub(r"(?<=\w)\+", " +", recipe.description) if recipe.description[:1] == "+" else recipe.description,
            ", ".join(recipe.trained_on),
            "–" if recipe.published_acc10 is None else f"{recipe.published_acc10:.3f}",
        )
    return table


def _settings(catalogue: Catalogue, with_costs: bool) -> Table:
    costs = ("para-\nmeters", "multiply-\nadds") if with_costs else ("epochs", "MS loss\nα β λ")
    table = _table(
        "\nTheir settings at full scale (Table 4 and what differs)",
        ("name", "backbone", "descriptors", "w×h px", "lr", *costs),
        folded=("backbone", "descriptors"),
    )
    known: dict[str, Costs] = {}
    for name, recipe in catalogue.retrievers.items():
        settings = recipe.full
        if with_costs:
            cost = costs_of(settings, known)
            last = (f"{cost.num_parameters / 1e6:.1f} M", f"{cost.multiply_adds / 1e9:.1f} G")
        else:
            shape = settings.losses.multi_similarity
            length = str(settings.epochs) if settings.num_steps is None else f"{settings.num_steps} steps"
            last = (length, f"{shape.alpha:g} {shape.beta:g} {shape.base:g}")
        table.add_row(
            name,
            settings.backbone,
            "+".join(settings.descriptors),
            f"{settings.input_wh[0]}×{settings.input_wh[1]}",
            f"{settings.learning_rate:g}",
            *last,
        )
    return table


def _trained(work: Workplace) -> Table:
    table = _table(f"\nModels in {work.root}", ("name", "kind", "what it is"), folded=("what it is",))
    for kind in get_args(ModelKind):
        for name, model in trained(work, kind).items():
            seen = [f"chosen on {photos['num_photos']} photos of {photos['split']}" for photos in model["chosen_on"]]
            table.add_row(name, kind, "; ".join([model["summary"], *seen]))
    return table


def in_full(recipe: DetectorRecipe | RetrieverRecipe) -> str:
    """One recipe with all its settings as a TOML text, to be copied into a recipe file under another name.

    Args:
        recipe: of either kind.
    """
    from harness.retrieval.recipes import RetrieverRecipe

    lines: list[str] = []
    told = recipe.model_dump(mode="json")
    if isinstance(recipe, RetrieverRecipe):
        if recipe.published_acc10 is not None:
            lines.append(f"# published Acc@10 of {recipe.name}, ground-truth boxes: {recipe.published_acc10}")
        lines.append(f"# trains on {', '.join(recipe.trained_on)}")
        lines += ["[models.NAME]", f"base = {json.dumps(recipe.name)}"]
        lines.append(f"description = {json.dumps(recipe.description, ensure_ascii=False)}")
        prefix = "models.NAME"
    else:
        if recipe.published is not None:
            lines.append(f"# published AP50 of {recipe.name}: {recipe.published.ap50}")
        prefix = "detectors.NAME"
    for scale, settings in _scales(recipe).items():
        if settings is not None:
            lines += ["", f"[{prefix}.{scale}]"]
            lines += [f"{_key(key)} = {_value(value)}" for key, value in told[scale].items() if value is not None]
    return "\n".join(lines)


def _scales(recipe: Any) -> dict[str, Any]:
    return {"full": recipe.full, "tiny": recipe.tiny}


def _key(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else json.dumps(text, ensure_ascii=False)


def _value(value: Any) -> str:
    """A JSON value as TOML, which knows no null: such keys are left out."""
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items() if one is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _table(title: str, headings: Sequence[str], folded: Sequence[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, collapse_padding=True)
    for heading in headings:
        table.add_column(heading, no_wrap=heading not in folded, overflow="fold")
    return table
