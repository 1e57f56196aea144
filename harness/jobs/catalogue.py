"""Every recipe of a detector and of a retrieval model, resolved, beside what was published for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def as_json(recipes: Path | None = None) -> dict[str, Any]:
    """All recipes with all settings as JSON values; published figures under ``published`` alone.

    Args:
        recipes: a TOML file of further detectors.
    """
    from harness.detection.recipes import load_recipes as load_detectors
    from harness.retrieval.recipes import load_recipes as load_retrievers

    return {
        "detectors": {name: recipe.model_dump(mode="json") for name, recipe in load_detectors(recipes).items()},
        "retrievers": {name: recipe.model_dump(mode="json") for name, recipe in load_retrievers().items()},
    }


def tables(recipes: Path | None = None) -> list[Table]:
    """The recipes as two tables for the terminal; published figures are of DeepFashion2 validation.

    Args:
        recipes: a TOML file of further detectors.
    """
    from harness.detection.recipes import load_recipes as load_detectors
    from harness.retrieval.recipes import load_recipes as load_retrievers

    detectors = _table("Detectors, in the order in which WBF_n takes them")
    for heading in ("name", "mmdet config", "input px", "schedule", "published\nAP50"):
        detectors.add_column(heading, no_wrap=heading == "name", overflow="fold")
    for name, detector in load_detectors(recipes).items():
        full = detector.full
        length = f"{full.num_epochs:g} epochs" if full.num_epochs is not None else f"{full.num_steps} steps"
        detectors.add_row(
            name,
            full.config or str(full.model.get("type")),
            f"{full.input_px[0]}×{full.input_px[1]}",
            f"{full.optimiser.kind} {full.optimiser.learning_rate:g}, {length}",
            "–" if detector.published is None else f"{detector.published.ap50:.3f}",
        )
    retrievers = _table("\nRetrieval models (Tables 3 and 4)")
    for heading in ("name", "description", "backbone", "descriptors", "w×h px", "lr", "published\nAcc@10"):
        retrievers.add_column(heading, no_wrap=heading != "description")
    for name, retriever in load_retrievers().items():
        settings = retriever.full
        retrievers.add_row(
            name,
            retriever.description,
            settings.backbone,
            "+".join(settings.descriptors),
            f"{settings.input_wh[0]}×{settings.input_wh[1]}",
            f"{settings.learning_rate:g}",
            "–" if retriever.published_acc10 is None else f"{retriever.published_acc10:.3f}",
        )
    return [detectors, retrievers]


def _table(title: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, collapse_padding=True)
