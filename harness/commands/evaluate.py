"""`evaluate`: the score of anyone's result file, without photos, models or torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands.options import Json, emit, show

app = typer.Typer()


@app.command()
def evaluate(
    file: Annotated[Path, typer.Argument(help="A challenge JSON.")],
    query: Annotated[Path, typer.Option("--query", help="val_query.json.")],
    gallery: Annotated[Path, typer.Option("--gallery", help="val_gallery.json.")],
    as_json: Json = False,
) -> None:
    """Score anyone's challenge JSON by the official protocol."""
    from harness.scoring.official import evaluate_files

    found = evaluate_files(file, query, gallery)
    accuracies = {str(k): accuracy for k, accuracy in found.acc.items()}
    if as_json:
        emit({"protocol": found.protocol, "num_queries": found.num_queries, "acc": accuracies})
    else:
        show(f"protocol {found.protocol}, {found.num_queries} queries")
        show(*(f"Acc@{k:<3} {accuracy:.6f}" for k, accuracy in accuracies.items()))
