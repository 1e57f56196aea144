#!/usr/bin/env python3
"""The command line: parses, calls one function, prints; nothing else."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from harness.types import SPLITS, InputError, SplitName

app = typer.Typer(
    name="run.py",
    help="Clothes retrieval on DeepFashion2: train, ensemble, submit, score and compare.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)
data_app = typer.Typer(help="The data set: render one, examine one, export its ground truth.", no_args_is_help=True)
train_app = typer.Typer(help="Train a detector or a retrieval model.", no_args_is_help=True)
tune_app = typer.Typer(help="Fit settings on training photos.", no_args_is_help=True)
board_app = typer.Typer(help="Scored rows: show, compare, write the page.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(train_app, name="train")
app.add_typer(tune_app, name="tune")
app.add_typer(board_app, name="leaderboard")

Work = Annotated[Path, typer.Option("--work", help="Working folder: models, store, leaderboard.")]
Data = Annotated[Path, typer.Option("--data", help="A DeepFashion2 folder, real or rendered.")]
SplitOption = Annotated[Literal["train", "validation", "test"], typer.Option("--split", help="Which split.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of data, weights, data order and augmentation.")]
Spec = Annotated[
    str, typer.Argument(help="An ensemble: 'm1-16 with WBF_5', 'm4 + GT', or a name from submissions/ensembles.")
]

WORK = Path("work")

MOST_SHOWN = 20
"""Problems of one severity that are printed; ``--json`` has them all."""


def emit(value: dict[str, Any]) -> None:
    """The one JSON object of ``--json``."""
    sys.stdout.write(json.dumps(value) + "\n")


def show(*parts: Any) -> None:
    """Tables and text on standard output."""
    from rich.console import Console

    console = Console()
    for part in parts:
        if isinstance(part, str):  # whole lines for whoever pipes them, and square brackets as they are
            console.print(part, markup=False, highlight=False, soft_wrap=True)
        else:
            console.print(part)


@app.command()
def quickstart(
    work: Work = WORK,
    seed: Seed = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Single-thread processes side by side.")] = 2,
    as_json: Json = False,
) -> None:
    """The whole job on rendered data, on a CPU: render, train, fuse, embed, search, score, compare."""
    from harness.progress import bars
    from harness.quickstart import job, report

    place = _place(work)
    with bars() as shown:
        result = job.quickstart(place, job.QuickstartSettings(seed=seed, num_workers=workers), shown)
    published = report.publish(place, result)
    emit(report.as_json(result, published)) if as_json else show(*report.tables(result, published))


@data_app.command("render")
def data_render(
    folder: Annotated[Path, typer.Argument(help="Where to.")],
    seed: Seed = 0,
    train: Annotated[int | None, typer.Option(min=2, help="Photos of the train split.")] = None,
    validation: Annotated[int | None, typer.Option(min=2, help="Photos of the validation split.")] = None,
    test: Annotated[int | None, typer.Option(min=2, help="Photos of the test split.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Render a data set in DeepFashion2's layout; the same seed gives the same bytes."""
    from harness.data.rendered import RenderSettings, render
    from harness.progress import bars

    sizes = {"num_train": train, "num_validation": validation, "num_test": test}
    settings = RenderSettings(seed=seed, **{name: size for name, size in sizes.items() if size is not None})
    with bars() as report:
        render(folder, settings, workers=workers, progress=report("render photos"))
    show(f"rendered {settings.num_train + settings.num_validation + settings.num_test} photos into {folder}")


@data_app.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(help="A DeepFashion2 folder.")],
    decode: Annotated[Literal["none", "sample", "all"], typer.Option(help="Photos to decode.")] = "sample",
    as_json: Json = False,
) -> None:
    """Count a data set and list everything that is wrong with it."""
    from harness.data.doctor import check
    from harness.progress import bars

    with bars() as report:
        found = check(folder, decode=decode, progress=report("check data"))
    problems = [{"where": one.where, "what": one.what, "fatal": one.fatal} for one in found.problems]
    if as_json:
        splits = [asdict(one) for one in found.splits]
        emit({"ok": found.ok, "rendered": found.rendered, "splits": splits, "problems": problems})
    else:
        for one in found.splits:
            counts = list(asdict(one).items())[1:]
            show(one.name, *(f"  {key.replace('_', ' ')}: {_plain(value)}" for key, value in counts))
        _show_problems([("error" if one.fatal else "warning", one.where, one.what) for one in found.problems])
        show(
            f"{folder}: {'can be read' if found.ok else 'cannot be read'}{', RENDERED data' if found.rendered else ''}"
        )
    if not found.ok:
        raise typer.Exit(1)


@data_app.command("export")
def data_export(
    folder: Annotated[Path, typer.Argument(help="A DeepFashion2 folder.")],
    out: Annotated[Path, typer.Option("--out", help="Where to.")],
    split: SplitOption = "validation",
) -> None:
    """Write val_query.json, val_gallery.json and the COCO ground truth."""
    from harness.data.exports import write_exports
    from harness.progress import bars

    with bars() as report:
        paths = write_exports(_read(folder, split), _folder(out), progress=report("export"))
    show(*map(str, paths))


@app.command()
def models(as_json: Json = False) -> None:
    """Every detector and retrieval recipe, resolved, with its published figure."""
    from harness import catalogue

    emit(catalogue.as_json()) if as_json else show(*catalogue.tables())


Name = Annotated[str, typer.Argument(help="Which; run.py models lists them.")]
Scale = Annotated[
    Literal["full", "tiny"], typer.Option("--scale", help="full (the paper's) or tiny (rendered data on a CPU).")
]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Optimiser steps instead of the recipe's.")]
Devices = Annotated[int, typer.Option("--devices", min=0, help="GPUs a node; 0 takes all.")]
Nodes = Annotated[int, typer.Option("--nodes", min=1, help="Machines.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a model of other settings.")]
HoldOut = Annotated[
    bool, typer.Option("--hold-out", help="Leave out the tenth of the pairs on which `tune fusion` fits.")
]
Init = Annotated[Path | None, typer.Option("--init-from", help="Weights to start from.")]


@train_app.command("detector")
def train_detector(
    name: Name,
    data: Data,
    work: Work = WORK,
    scale: Scale = "full",
    split: SplitOption = "train",
    seed: Seed = 0,
    steps: Steps = None,
    devices: Devices = 0,
    nodes: Nodes = 1,
    init_from: Init = None,
    hold_out: HoldOut = False,
    force: Force = False,
) -> None:
    """Train one of the five detectors; an interrupted training goes on."""
    from harness.detection.recipes import load_recipes
    from harness.detection.training import train

    place, photos = _place(work), _read(data, split)
    card = train(
        _one_of(load_recipes(), name, "detector"),
        scale,
        photos,
        _training_ids(photos, hold_out),
        place.model_folder("detector", name),
        seed=seed,
        num_steps=steps,
        init_from=init_from,
        devices=devices,
        num_nodes=nodes,
        force=force,
    )
    show(f"trained {name} in {card.seconds:.0f} s: {place.model_folder('detector', name)}")


@train_app.command("retriever")
def train_retriever(
    name: Name,
    data: Data,
    work: Work = WORK,
    scale: Scale = "full",
    split: Annotated[list[str] | None, typer.Option("--split", help="May be given twice, as m7 wants.")] = None,
    seed: Seed = 0,
    steps: Steps = None,
    devices: Devices = 0,
    nodes: Nodes = 1,
    init_from: Init = None,
    deepfashion2_only: Annotated[
        bool, typer.Option("--deepfashion2-only", help="Train without the recipe's other sources.")
    ] = False,
    hold_out: HoldOut = False,
    force: Force = False,
) -> None:
    """Train a retrieval model, m0 to m17; an interrupted training goes on."""
    from harness.retrieval.recipes import load_recipes
    from harness.retrieval.training import train

    place, parts = _place(work), [_read(data, _split_name(one)) for one in split or ["train"]]
    card = train(
        name,
        _one_of(load_recipes(), name, "retrieval model"),
        scale,
        parts[0],
        _training_ids(parts[0], hold_out),
        place.model_folder("retriever", name),
        seed=seed,
        also=[(part, part.photos.image_ids) for part in parts[1:]],
        num_steps=steps,
        backbone_weights=init_from,
        devices=devices,
        num_nodes=nodes,
        deepfashion2_only=deepfashion2_only,
        force=force,
    )
    show(f"trained {name} in {card.seconds:.0f} s: {place.model_folder('retriever', name)}")


@tune_app.command("fusion")
def tune_fusion(
    data: Data,
    work: Work = WORK,
    split: SplitOption = "train",
    trials: Annotated[int, typer.Option(min=1, help="Settings to try for each WBF_n.")] = 30,
    max_per_image: Annotated[int | None, typer.Option(min=1, help="Most fused boxes a photo.")] = None,
    seed: Seed = 0,
) -> None:
    """Fit the settings of every WBF_n on the pairs of a training split that the detectors were not trained on."""
    from harness.jobs import fit_fusion, held_out_pairs
    from harness.pipeline import Pipeline
    from harness.progress import bars

    photos = _read(data, split)
    with bars() as report:
        held = Pipeline(_place(work), photos, image_ids=held_out_pairs(photos)[1], report=report)
        fitted = fit_fusion(held, num_trials=trials, seed=seed, max_per_image=max_per_image)
    what = f"{'RENDERED, ' if photos.rendered else ''}{fitted['WBF_1']['num_photos']} held-out photos of {split}"
    show(f"fitted on {what}; kept in {_place(work).fusion}")
    show(*(f"{name}: AP50 {entry['ap50']:.3f} with {_plain(entry['settings'])}" for name, entry in fitted.items()))


@app.command()
def detect(name: Name, data: Data, work: Work = WORK, split: SplitOption = "validation") -> None:
    """Run one detector, or fuse several (WBF_n), over a split; the boxes go to the store."""
    from harness.jobs import box_ap_of
    from harness.pipeline import HISTOGRAM
    from harness.progress import bars
    from harness.spec import BoxSource

    with bars() as report:
        pipeline = _pipeline(work, data, split, report)
        name = pipeline.parse(f"{HISTOGRAM} + {name}").boxes.name
        boxes = pipeline.boxes(BoxSource(name))
        ap = box_ap_of(pipeline, name)
    what = f"{'RENDERED ' if pipeline.split.rendered else ''}{split}"
    show(f"{len(boxes.detections):,} boxes of {name} on {what}, kept in {pipeline.work.root / 'store'}")
    if ap is not None and ap.ap is not None and ap.ap50 is not None:
        show(f"AP {ap.ap:.3f}, AP50 {ap.ap50:.3f} on {what}")


@app.command()
def embed(spec: Spec, data: Data, work: Work = WORK, split: SplitOption = "validation") -> None:
    """Embed the boxes of an ensemble with its models, all missing ones in one pass over the photos."""
    from harness.progress import bars

    with bars() as report:
        pipeline = _pipeline(work, data, split, report)
        ensemble = pipeline.parse(_named(spec))
        pipeline.members(ensemble)
        features, addresses = pipeline.embeddings(
            [member.model for member in ensemble.members], pipeline.boxes(ensemble.boxes)
        )
    for name, found in features.items():
        rows, dimensions = found.vectors_ND.shape
        show(
            f"{name}: {rows:,} x {dimensions} in {_place(work).root / 'store' / 'embed' / addresses[name]}/vectors.npy"
        )


@app.command()
def score(spec: Spec, data: Data, work: Work = WORK, split: SplitOption = "validation", as_json: Json = False) -> None:
    """Run what is missing, score by the official protocol, add a leaderboard row."""
    from harness import jobs
    from harness.progress import bars

    with bars() as report:
        named = _named(spec)
        _, row = jobs.score(_pipeline(work, data, split, report), named, None if named == spec else spec)
    low, high = row.interval(10)
    accuracies = {str(k): accuracy for k, accuracy in row.score.acc.items()}
    if as_json:
        emit(
            {
                "row": row.id,
                "spec": row.spec,
                "split": row.split,
                "rendered": row.rendered,
                "protocol": row.score.protocol,
                "num_queries": row.score.num_queries,
                "acc": accuracies,
                "acc10_interval": [low, high],
                "contamination": row.contamination,
                "hedged": row.hedged,
                "stage_seconds": row.stage_seconds,
            }
        )
        return
    show(f"{row.spec} on {'RENDERED data, ' if row.rendered else ''}{split}: {row.score.num_queries} queries")
    show(*(f"Acc@{k:<3} {accuracy:.6f}" for k, accuracy in accuracies.items()))
    show(f"95 % interval of Acc@10 {low:.4f} to {high:.4f}; row {row.id[:12]} of {_place(work).board}")
    if row.contamination:
        show(f"ranked apart: {row.contamination}")
    if row.hedged:
        show("ranked apart: class hedging, many boxes stand under most categories at once; fewer boxes a photo help")


@app.command()
def submit(
    spec: Spec,
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="The challenge JSON to write.")],
    work: Work = WORK,
    split: SplitOption = "test",
) -> None:
    """Write the challenge JSON of an ensemble."""
    from harness.jobs import hand_in
    from harness.progress import bars

    with bars() as report:
        path, num_bytes = hand_in(_pipeline(work, data, split, report), _named(spec), _target(out))
    show(f"wrote {path} ({num_bytes / 1e6:.1f} MB)")


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A challenge JSON.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="A DeepFashion2 folder, to check the ids against.")
    ] = None,
    split: SplitOption = "validation",
    as_json: Json = False,
) -> None:
    """List everything that is wrong with anyone's challenge JSON."""
    from submissions.checker import check_submission

    found = check_submission(file, None if data is None else _read(data, split))
    problems = [{"where": one.where, "what": one.what, "severity": one.severity} for one in found.problems]
    if as_json:
        emit({"ok": found.ok, "num_rows": found.num_rows, "problems": problems})
    else:
        _show_problems([(one.severity, one.where or str(file), one.what) for one in found.problems])
        show(f"{file}: {'no errors' if found.ok else 'has errors'}, {found.num_rows or 0:,} rows")
    if not found.ok:
        raise typer.Exit(1)


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


Board = Annotated[Path | None, typer.Option("--board", help="The board; that of the working folder if not given.")]


@board_app.command("show")
def board_show(work: Work = WORK, board: Board = None) -> None:
    """The rows, best first, by data set and protocol."""
    from leaderboard.terminal import show as as_table

    show(*as_table(_board(work, board)))


@board_app.command("html")
def board_html(
    work: Work = WORK,
    board: Board = None,
    out: Annotated[Path | None, typer.Option("--out", help="The page; beside the board if not given.")] = None,
) -> None:
    """Write the leaderboard as one self-contained page."""
    from leaderboard.pages import write_page

    show(str(write_page(_board(work, board), _target(out or _place(work).page))))


@board_app.command("compare")
def board_compare(
    first: Annotated[str, typer.Argument(help="A row's id, or its beginning.")],
    second: Annotated[str, typer.Argument(help="Another row's.")],
    work: Work = WORK,
    board: Board = None,
    k: Annotated[int, typer.Option(help="Of Acc@k: 1, 5, 10, 15 or 20.")] = 10,
    as_json: Json = False,
) -> None:
    """Compare two rows by a paired test on the same queries."""
    from leaderboard.comparison import compare

    rows = _board(work, board)
    found = compare(rows.row(first), rows.row(second), k)
    if as_json:
        emit(asdict(found))
    else:
        low, high = found.interval
        show(found.verdict, f"{second} minus {first}: {found.difference:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}")


@app.command()
def tables(
    data: Data,
    work: Work = WORK,
    split: SplitOption = "validation",
    as_json: Json = False,
) -> None:
    """The paper's tables beside what was measured here, in Markdown."""
    from harness.jobs import tables as measured_tables
    from harness.progress import bars

    with bars() as report:
        found = measured_tables(_pipeline(work, data, split, report))
    if as_json:
        emit({"tables": [asdict(table) for table in found]})
    else:
        sys.stdout.write("\n".join(table.markdown() for table in found))


def _place(work: Path) -> Any:
    from harness.workplace import Workplace

    return Workplace(_folder(work))


def _folder(path: Path) -> Path:
    """A folder that can be written into; asked before hours of work, not after them."""
    existing = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not existing.is_dir():
        raise InputError(f"{path}: {existing} is not a folder; name another")
    if not os.access(existing, os.W_OK):
        raise InputError(f"{path}: {existing} cannot be written to; name another folder")
    return path


def _target(path: Path) -> Path:
    """A file that can be written; whatever else bears the name is left alone."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is there and is no regular file; name another")
    _folder(path.parent)
    return path


def _show_problems(problems: list[tuple[str, str, str]]) -> None:
    """Severity, place and text of each; of many only the first."""
    for severity in ("error", "warning"):
        found = [one for one in problems if one[0] == severity]
        show(*(f"{severity}: {where}: {what}" for _, where, what in found[:MOST_SHOWN]))
        if len(found) > MOST_SHOWN:
            show(f"… and {len(found) - MOST_SHOWN:,} more {severity}s (all of them with --json)")


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(one)}" for key, one in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _read(folder: Path, split: SplitName) -> Any:
    from harness.data.deepfashion2 import read_split

    return read_split(folder, split)


def _split_name(text: str) -> SplitName:
    for name in SPLITS:
        if name == text:
            return name
    raise typer.BadParameter(f"{text!r} is not one of {', '.join(SPLITS)}", param_hint="--split")


def _pipeline(work: Path, data: Path, split: SplitName, report: Any) -> Any:
    from harness.pipeline import Pipeline

    return Pipeline(_place(work), _read(data, split), report=report)


def _named(spec: str) -> str:
    """The spec of a named ensemble, or the text itself."""
    from submissions.named import named_ensembles

    named = named_ensembles()
    if spec in named:
        return named[spec].spec
    if "-w" in spec:  # no model or detector has that in its name
        raise InputError(f"there is no ensemble named '{spec}'; there are {', '.join(named)}")
    return spec


def _training_ids(photos: Any, hold_out: bool) -> Any:
    from harness.jobs import held_out_pairs

    return held_out_pairs(photos)[0] if hold_out else photos.photos.image_ids


def _board(work: Path, board: Path | None) -> Any:
    from leaderboard.store import Board as Rows

    return Rows(board or _place(work).board, create=False)


def _one_of(recipes: Any, name: str, what: str) -> Any:
    if name not in recipes:
        raise InputError(f"unknown {what} '{name}'; there are {', '.join(recipes)}")
    return recipes[name]


def main() -> NoReturn:
    """Run the command; wrong input is one message on standard error and exit status 1."""
    try:
        app()
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # a full disk, a folder that may not be written
        if error.filename is None:
            raise
        sys.stderr.write(f"error: {error.filename}: {error.strerror}\n")
        sys.exit(1)
    raise AssertionError("typer ends the process")


if __name__ == "__main__":
    main()
