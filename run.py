#!/usr/bin/env python3
"""The command line: its commands are in `harness.commands`."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from harness.commands import (
    ablate,
    bench,
    board,
    check,
    data,
    enter,
    evaluate,
    evaluate_boxes,
    models,
    pages,
    recipes,
    select,
    single_stages,
    stages,
    tune,
)
from harness.commands.options import emit
from harness.training.processes import Interrupted
from harness.types import InputError

app = typer.Typer(
    name="run.py",
    help="Clothes retrieval on DeepFashion2: train, ensemble, submit, score and compare.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)
app.add_typer(stages.app)
app.add_typer(single_stages.app)
app.add_typer(data.data_app, name="data")
app.add_typer(recipes.app)
app.add_typer(models.app)
app.add_typer(tune.tune_app, name="tune")
app.add_typer(ablate.app)
app.add_typer(select.app)
app.add_typer(enter.enter_app, name="enter")
app.add_typer(evaluate.app)
app.add_typer(evaluate_boxes.app)
app.add_typer(check.app)
app.add_typer(bench.app)
board.board_app.add_typer(pages.app)
app.add_typer(board.board_app, name="leaderboard")


def main() -> NoReturn:
    """Run the command; wrong input is one message on standard error and exit status 1."""
    try:
        app()
    except InputError as error:
        _fail(str(error))
    except Interrupted as stop:  # shells know a command that a signal ended by 128 and more
        _fail(str(stop), 128 + stop.signal_number)
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # a full disk, a folder that may not be written
        if error.strerror is None:
            raise
        _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    raise AssertionError("typer ends the process")


def _fail(message: str, status: int = 1) -> NoReturn:
    """One message on standard error; with ``--json`` it is the one object on standard output as well."""
    sys.stderr.write(f"error: {message}\n")
    if "--json" in sys.argv:
        emit({"error": message})
    sys.exit(status)


if __name__ == "__main__":
    main()
