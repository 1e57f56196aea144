"""One stage alone over a split: `detect`, `embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from harness.commands.options import (
    WORK,
    Data,
    Json,
    Names,
    SplitOption,
    Work,
    emit,
    fusion_settings,
    inference_settings,
    read_photos,
    show,
    workplace,
    writable_folder,
)
from harness.commands.tables import ap_table, fusion_words

app = typer.Typer()


@app.command()
def detect(
    names: Names,
    data: Data,
    work: Work = WORK,
    split: SplitOption = "validation",
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Look at mirrored photos too; twice the time.")
    ] = None,
    scales: Annotated[
        str | None, typer.Option("--scales", help="Factors of the input size, such as 0.75,1,1.25; each is looked at.")
    ] = None,
    precision: Annotated[
        Literal["32", "16", "bf16"] | None, typer.Option("--precision", help="Of the network; boxes stay in 32 bits.")
    ] = None,
    score_threshold: Annotated[
        float | None, typer.Option("--score-threshold", min=0, max=1, help="Lowest score, instead of the recipe's.")
    ] = None,
    max_per_image: Annotated[
        int | None, typer.Option("--max-per-image", min=1, help="Most boxes a photo, instead of the recipe's.")
    ] = None,
    fusion: Annotated[
        list[str] | None,
        typer.Option(
            "--fusion",
            help="How WBF_n is fused: iou_threshold=0.6, weights=[1,2], label_policy=best … (one a time); or defaults.",
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="All commands use these settings from now on; without any, the recipe's.")
    ] = False,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Photos at once.")] = None,
    devices: Annotated[
        int, typer.Option("--devices", min=1, help="Processes: a GPU each, or one thread each where there is none.")
    ] = 1,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="That decode photos, ahead.")] = None,
    as_json: Json = False,
) -> None:
    """Run detectors, and fuse them (WBF_n), over a split; the boxes go to the store.

    Every photo is decoded once for all of them. Whatever shapes the boxes (--flip to --max-per-image) counts for this
    call alone, unless --keep keeps it. Started by torchrun or srun on several machines that see the same folders, all
    processes share the work.
    """
    from harness.jobs import boxes
    from harness.pipeline import Pipeline
    from harness.progress import bars
    from harness.shards import Resources
    from harness.sharing import with_helpers
    from harness.training.launching import ending_together

    given: dict[str, Any] = {"flip": flip, "scales": scales, "precision": precision}
    given |= {"score_threshold": score_threshold, "max_per_image": max_per_image}
    settings = inference_settings({name: value for name, value in given.items() if value is not None})
    fusing = fusion_settings(fusion or [])

    def work_on() -> None:
        with bars() as report:
            pipeline = Pipeline(
                workplace(work),
                read_photos(data, split),
                report=report,
                resources=Resources(batch_size, devices, threads),
            )
            found = boxes.detect(pipeline, names, settings, fusing, keep=keep)
        what = f"{'RENDERED ' if pipeline.split.rendered else ''}{split}"
        if as_json:
            told = [one.as_json() for one in found]
            emit({"split": split, "rendered": pipeline.split.rendered, "kept": keep, "boxes": told})
            return
        for name, how in {name: how for one in found for name, how in one.settings.items()}.items():
            show(f"{name}: {how}")
        show(*(f"{one.name}: {fusion_words(one.fusion)}" for one in found if one.fusion is not None))
        if keep:
            kept = [str(pipeline.work.inference)] * (settings is not None) + [str(pipeline.work.fusion)] * (
                fusing is not None
            )
            show(f"kept in {' and '.join(kept)}" if kept else "from now on the detectors look as their recipes say")
        for one in found:
            show(f"{one.num_boxes:,} boxes of {one.name} on {what}, kept in {pipeline.work.root / 'store'}")
            if one.thresholds:
                show("scores from " + ", ".join(f"{score:.4f} ({of})" for of, score in one.thresholds.items()))
        if any(one.ap is not None for one in found):
            show(ap_table({one.name: one.ap for one in found if one.ap is not None}, what))

    with ending_together():
        with_helpers(work_on)


@app.command()
def embed(
    specs: Annotated[
        list[str], typer.Argument(metavar="SPEC...", help="Ensembles ('m1-16 with WBF_5', 'm4 + GT') or models alone.")
    ],
    data: Data,
    work: Work = WORK,
    split: SplitOption = "validation",
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Add the mirrored crop; twice the time of the networks.")
    ] = None,
    precision: Annotated[
        Literal["32", "16", "bf16", "fp32", "fp16"] | None,
        typer.Option("--precision", help="Of the networks; lengths and pooled powers stay in 32 bits."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="All commands use these settings from now on; without any, the defaults.")
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Crops gathered before the networks see them.")
    ] = None,
    devices: Annotated[
        int, typer.Option("--devices", min=1, help="Processes: a GPU each, or one thread each where there is none.")
    ] = 1,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="That decode photos and cut, ahead.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="A folder for NAME.npy and boxes.json, as `enter embeddings` takes them."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Embed the boxes of ensembles with their models, all missing ones in one pass over the photos.

    --flip and --precision change the embeddings, for this call alone unless --keep keeps them. Started by torchrun or
    srun on several machines that see the same folders, all processes share the work.
    """
    from harness.jobs import embeddings
    from harness.pipeline import Pipeline
    from harness.progress import bars
    from harness.retrieval.embedding_settings import EmbeddingSettings
    from harness.shards import Resources
    from harness.sharing import with_helpers
    from harness.training.launching import ending_together

    given = {"flip": flip, "precision": None if precision is None else precision.removeprefix("fp")}
    given = {name: value for name, value in given.items() if value is not None}
    settings = EmbeddingSettings.model_validate(given) if given else None
    folder = None if out is None else writable_folder(out)

    def work_on() -> None:
        with bars() as report:
            resources = Resources(num_devices=devices, num_threads=threads, num_crops=batch_size)
            pipeline = Pipeline(workplace(work), read_photos(data, split), report=report, resources=resources)
            found = embeddings.embed(pipeline, specs, settings, keep=keep, out=folder)
        told, rendered = [one.as_json() for one in found], pipeline.split.rendered
        if as_json:
            emit({"split": split, "rendered": rendered, "kept": keep, "embeddings": told})
            return
        for one in found:
            what = f"{one.boxes} on {'RENDERED ' if rendered else ''}{split}"
            how = "made elsewhere" if one.source else one.settings or "untrained"
            show(f"{one.name}: {one.rows:,} x {one.dimensions} of {what} ({how}) in {one.file}")
        if keep:
            show("from now on the models look plainly" if settings is None else f"kept in {pipeline.work.looks}")
        if folder is not None:
            show(f"for others: {', '.join(f'{one.name}.npy' for one in found)} and boxes.json in {folder}")

    with ending_together():
        with_helpers(work_on)
