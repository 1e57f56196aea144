"""`models`: the recipes, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands.options import Json, emit, show

app = typer.Typer()


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="One recipe, in full, as text for a recipe file.")] = None,
    recipes: Annotated[
        list[Path] | None,
        typer.Option("--recipes", help="A TOML file of further detectors or retrieval models; may be given twice."),
    ] = None,
    work: Annotated[
        Path | None, typer.Option("--work", help="A working folder; say what is trained there, and on what.")
    ] = None,
    costs: Annotated[
        bool, typer.Option("--costs", help="Parameters and multiply-adds a crop of the retrieval models.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Every detector and retrieval recipe, resolved, with its published figure."""
    from harness.jobs import catalogue
    from harness.workplace import Workplace

    known = catalogue.read_catalogue(recipes or ())
    place = None if work is None else Workplace(work)
    if name is not None:
        recipe = known.named(name)
        emit(recipe.model_dump(mode="json")) if as_json else show(catalogue.in_full(recipe))
    elif as_json:
        emit(catalogue.as_json(known, place, with_costs=costs))
    else:
        show(*catalogue.tables(known, place, with_costs=costs))
