"""The stages over a split, all together: `quickstart`, `score`, `submit`, `tables`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from harness.commands.options import (
    WORK,
    Board,
    Data,
    Engine,
    Json,
    Memory,
    Seed,
    Sources,
    Spec,
    SplitOption,
    Work,
    board_name,
    emit,
    open_pipeline,
    read_photos,
    read_sources,
    show,
    spec_of,
    workplace,
    writable_file,
)
from harness.commands.plan import WithPlan, show_plan
from harness.commands.tables import gains_table, ladder_table
from harness.types import InputError

app = typer.Typer()


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

    place = workplace(work)
    with bars() as shown:
        result = job.quickstart(place, job.QuickstartSettings(seed=seed, num_workers=workers), shown)
        published = report.publish(place, result, shown)
    emit(report.as_json(result, published)) if as_json else show(*report.tables(result, published))


@app.command()
def score(
    spec: Spec,
    data: Data,
    work: Work = WORK,
    board: Board = None,
    split: SplitOption = "validation",
    with_ladder: Annotated[
        bool, typer.Option("--ladder", help="Score again with ground-truth classes, query boxes and gallery boxes.")
    ] = False,
    every_box: Annotated[
        bool,
        typer.Option(
            "--every-box",
            help="Search for every detected box, as submit does, not only for those that speak for a query; "
            "the score is the same, and evaluate can look into the file.",
        ),
    ] = False,
    engine: Engine = "auto",
    memory: Memory = None,
    with_plan: WithPlan = False,
    as_json: Json = False,
) -> None:
    """Run what is missing, score by the official protocol, add a leaderboard row."""
    if with_plan:
        show_plan(work, data, split, spec, every_box=every_box, engine=engine, memory=memory, as_json=as_json)
    from harness.jobs import oracles, results
    from harness.jobs.step_gains import step_gains
    from harness.progress import bars

    with bars() as report:
        named = spec_of(spec)
        pipeline = open_pipeline(work, data, split, report, board=board, engine=engine, memory=memory)
        scored, row = results.score(pipeline, named, None if named == spec else spec, every_box=every_box)
        gains = step_gains(pipeline, scored)
        rungs = oracles.ladder(pipeline, named) if with_ladder else []
        truth = pipeline.truth()
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
                "stage_seconds": {stage.stage: stage.seconds for stage in row.stages},
                "ladder": [rung.as_json() for rung in rungs],
                "steps": [gain.as_json() for gain in gains],
                "every_box": scored.every_box,
                "files": {"results": str(scored.submission), "query": str(truth[0]), "gallery": str(truth[1])},
            }
        )
        return
    show(f"{row.spec} on {'RENDERED data, ' if row.rendered else ''}{split}: {row.score.num_queries} queries")
    show(*(f"Acc@{k:<3} {accuracy:.6f}" for k, accuracy in accuracies.items()))
    show(f"95 % interval of Acc@10 {low:.4f} to {high:.4f}; row {row.id[:12]} of {board_name(pipeline.work.board)}")
    if gains:
        data_is = ", RENDERED data" if row.rendered else ""
        show("", f"Step by step{data_is}: each against the one before, p by McNemar's exact test", "")
        show(gains_table(gains))
    if rungs:
        show("", "With more and more of the ground truth, each searched again (a rung may lose)", "")
        show(ladder_table(rungs))
    if scored.every_box:
        show(f"why: run.py evaluate {scored.submission} --query {truth[0]} --gallery {truth[1]}")
    else:
        count, total = len(scored.ranking.query_rows), scored.num_consumer_boxes
        show(
            f"searched for the {count:,} of {total:,} boxes that speak for a query; --every-box for a file to look into"
        )
    if row.contamination:
        show(f"ranked apart: {row.contamination}")
    if row.hedged:
        show("ranked apart: class hedging, many boxes stand under most categories at once; fewer boxes a photo help")


@app.command()
def submit(
    spec: Spec,
    data: Data,
    out: Annotated[
        Path | None, typer.Option("--out", help="The challenge JSON to write; FILE.zip for a zip of it.")
    ] = None,
    work: Work = WORK,
    split: SplitOption = "test",
    decimals: Annotated[
        int, typer.Option("--decimals", min=0, max=9, help="Of box coordinates; scores keep all their digits.")
    ] = 3,
    engine: Engine = "auto",
    memory: Memory = None,
    with_plan: WithPlan = False,
    as_json: Json = False,
) -> None:
    """Write the challenge JSON of an ensemble."""
    if with_plan:
        show_plan(work, data, split, spec, decimals=decimals, engine=engine, memory=memory, as_json=as_json)

    from harness.jobs.results import hand_in
    from harness.progress import bars

    if out is None:
        raise typer.BadParameter("which file is to be written?", param_hint="--out")
    if out.suffix.lower() in (".gz", ".bz2", ".xz", ".7z", ".tar"):
        raise InputError(f"{out}: {out.suffix} is not written here; name it .json, or .zip for a zip")

    with bars() as report:
        path, num_bytes = hand_in(
            open_pipeline(work, data, split, report, engine=engine, memory=memory),
            spec_of(spec),
            writable_file(out),
            decimals,
            lambda warning: typer.echo(f"warning: {warning}", err=True),
        )
    if as_json:
        emit({"file": str(path), "bytes": num_bytes})
    else:
        show(f"wrote {path} ({num_bytes / 1e6:.1f} MB)")


@app.command()
def tables(
    data: Data,
    work: Work = WORK,
    board: Board = None,
    split: SplitOption = "validation",
    run: Annotated[
        bool,
        typer.Option(
            "--run", help="First score what Tables 3, 6 and 7 would have blank, where the models are trained here."
        ),
    ] = False,
    source: Sources = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write them as a page that needs nothing else.")] = None,
    as_json: Json = False,
) -> None:
    """The paper's tables beside what was measured here, in Markdown.

    Every figure that can be judged says whether it is within the tolerance of a reproduction; those of rendered data,
    or of a part of the photos, are not judged.

    Table 1 counts the data set's annotated splits and every --source.
    """
    from harness.data.garments import garments_of
    from harness.jobs.paper_tables import score_missing
    from harness.jobs.paper_tables import tables as measured_tables
    from harness.progress import bars

    with bars() as report:
        pipeline = open_pipeline(work, data, split, report, board=board)
        if run:
            score_missing(pipeline)
        splits = [read_photos(data, one) for one in ("train", "validation") if (data / one).is_dir()]
        at_hand = [garments_of(one, one.photos.image_ids) for one in splits if one.items is not None]
        found = measured_tables(pipeline, [*at_hand, *read_sources(source)])
    if html is not None:
        from leaderboard.pages.tables_page import write_html_page

        write_html_page(found, writable_file(html))
    if as_json:
        emit({"tables": [asdict(table) for table in found]})
    elif html is not None:
        show(f"wrote {html}")
    else:
        sys.stdout.write("\n".join(table.markdown() for table in found))
