"""`bench`: the stages of an ensemble timed on a sample of photos, and the kernels by their own benchmarks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from harness.commands.options import (
    WORK,
    Board,
    Json,
    SplitOption,
    Work,
    board_name,
    emit,
    read_photos,
    show,
    spec_of,
    workplace,
    writable_file,
)
from harness.commands.tables import plain_table

if TYPE_CHECKING:
    from harness.jobs.bench_kernels import KernelTiming
    from harness.jobs.bench_settings import BenchResult
    from harness.timing import Measurement

app = typer.Typer()


@app.command()
def bench(
    spec: Annotated[
        str | None,
        typer.Argument(help="An ensemble: 'm1-16 with WBF_5 | rerank', or a name from submissions/ensembles."),
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="A DeepFashion2 folder, real or rendered.")] = None,
    work: Work = WORK,
    board_at: Board = None,
    split: SplitOption = "validation",
    photos: Annotated[int, typer.Option("--photos", min=2, max=2048, help="Of the sample.")] = 64,
    queries: Annotated[
        int, typer.Option("--queries", min=1, help="That search and steps are timed with, at most.")
    ] = 256,
    repeats: Annotated[
        int | None, typer.Option("--repeats", min=1, help="Samples a stage; at least 5 and a second if not given.")
    ] = None,
    min_seconds: Annotated[
        float, typer.Option("--min-seconds", min=0, help="That a stage's samples take together, without --repeats.")
    ] = 1.0,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Photos that detectors see at once.")
    ] = None,
    precision: Annotated[
        Literal["32", "16", "bf16"] | None, typer.Option("--precision", help="Of all networks.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu, cuda or cuda:1; a GPU where there is one.")
    ] = None,
    devices: Annotated[
        int, typer.Option("--devices", min=1, help="Of the end-to-end runs: GPUs, or one-thread processes without.")
    ] = 1,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            "--stage",
            metavar="NAME",
            help="Time this alone; may be repeated: load, decode, detect, fuse, crop, embed, search, steps, write, "
            "score, end-to-end.",
        ),
    ] = None,
    baselines: Annotated[bool, typer.Option("--baselines/--no-baselines", help="Time baselines, too.")] = True,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Run the kernels' benchmarks of the checkout (minutes); needs no SPEC.")
    ] = False,
    only: Annotated[str | None, typer.Option("--only", help="Of the kernels' benchmarks; pytest's -k.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the result as JSON, every sample in it.")] = None,
    as_json: Json = False,
) -> None:
    """Time the stages of an ensemble on a sample of photos, each beside its baseline in the same run.

    Nothing is kept but the timings: they go to the ensemble's latest row on the leaderboard, if it has one for these
    photos. Models must be trained; search and steps take the features of the whole split where the working folder has
    them.
    """
    if spec is None and not kernels:
        raise typer.BadParameter("which ensemble? or --kernels", param_hint="SPEC")
    if spec is not None and data is None:
        raise typer.BadParameter("which data set?", param_hint="--data")
    if only is not None and not kernels:
        raise typer.BadParameter("is of --kernels", param_hint="--only")
    if out is not None:
        writable_file(out)
    told: dict[str, Any] = {}
    if spec is not None and data is not None:
        from harness.jobs.bench import attach, bench, board_of
        from harness.jobs.bench_settings import BenchSettings
        from harness.progress import bars

        settings = BenchSettings(
            num_photos=photos,
            num_queries=queries,
            repeats=repeats,
            min_seconds=min_seconds,
            batch_size=batch_size,
            precision=precision,
            device=device,
            num_devices=devices,
            stages=tuple(stage or ()),
            baselines=baselines,
        )
        place = workplace(work, board_at)
        board = board_of(place)
        with bars() as report:
            result = bench(place, read_photos(data, split), spec_of(spec), settings, report)
        result = attach(board, result)
        told = result.as_json()
        if not as_json:
            _show_stages(result)
            _show_row(result, board_name(place.board), board is not None)
    if kernels:
        from harness.jobs.bench_kernels import run_kernels

        kept = _kernels_file(work, out, spec is not None)
        timed = run_kernels(only, kept)
        told["kernels"] = [one.as_json() for one in timed]
        if not as_json:
            _show_kernels(timed)
            show(f"wrote {kept}")
    if out is not None and spec is not None:
        out.write_text(json.dumps(told, indent=1) + "\n")
        if not as_json:
            show(f"wrote {out}")
    if as_json:
        emit(told)


def _kernels_file(work: Path, out: Path | None, with_stages: bool) -> Path:
    """Where to keep what pytest-benchmark writes: the named file, unless the stages' result goes there."""
    if out is not None and not with_stages:
        return out
    from datetime import UTC, datetime

    folder: Path = workplace(work).root / "benchmarks"
    return writable_file(folder / f"kernels-{datetime.now(UTC):%Y%m%d-%H%M%S}.json")


def _show_row(result: BenchResult, board: str, is_there: bool) -> None:
    if result.row_id is not None:
        show(f"kept with row {result.row_id[:12]} of {board}")
        return
    why = "has no row of this ensemble on these photos" if is_there else "is not there yet"
    show(f"not kept on a leaderboard: {board} {why}; run.py score adds one")


def _show_stages(result: BenchResult) -> None:
    rendered = "RENDERED photos, no timings of DeepFashion2: " if result.rendered else ""
    show(f"{rendered}{result.spec} on {result.num_photos} photos of {result.split}, {result.device}", "")
    on_gpu = any(one.gpu_gib is not None for one in result.stages)
    memory = ["host", "GPU"] if on_gpu else ["host"]
    table = plain_table(["ms each, GiB", "median", "p95", "p99", "a second", *memory, "ratio"])
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"
    for one in result.stages:
        table.add_row(one.stage, *_figures(one, on_gpu))
    show(table, "")
    fewest = min(len(one.samples_s) for one in result.stages)
    show(
        "ratio: how many times as long the baseline takes, in turn with ours. Median, p95 and p99 are of the same "
        f"samples, at least {fewest} here, by nearest rank: of fewer than 20 and 100 p95 and p99 are the largest. "
        "host: all that is resident."
    )
    for one in result.stages:
        if one.baseline is not None:
            show(f"{one.stage}: baseline {one.baseline.stage}{_asides(one)}")
        elif _asides(one):
            show(f"{one.stage}{_asides(one).replace('; ', ': ', 1)}")
    if result.end_to_end is not None:
        found = result.end_to_end
        loading = found["model_loading_s"]
        of_it = "" if loading is None else f", of which loading models takes {loading:.3g} s"
        show(f"end to end: cold {found['cold_s']:.3g} s{of_it}; warm {found['warm_s']:.3g} s")
    hardware = result.hardware
    gpus = ", ".join(hardware["gpus"]) or "no GPU"
    versions = ", ".join(f"{name} {version}" for name, version in hardware["versions"].items())
    show(f"{hardware['cpu']}, {hardware['cores']} cores, {gpus}; Python {hardware['python']}, {versions}")
    show(f"harness {result.code_version}")
    from leaderboard.timing_runs import BUSY

    if result.load_per_core is not None and result.load_per_core >= BUSY:
        show(
            f"The machine was busy when this began ({result.load_per_core:.1f} processes wanted each core): run it "
            f"again when it is quiet. Networks used {result.num_threads} threads; OMP_NUM_THREADS=1 suffers less."
        )


def _asides(one: Measurement) -> str:
    parts = [one.note]
    if one.batch_size is not None:
        parts.append(f"batches of {one.batch_size}")
    if one.precision is not None:
        parts.append(f"precision {one.precision}")
    if one.energy_j is not None:
        parts.append(f"{one.energy_j / one.count:.3g} J a thing ({', '.join(one.energy_of)}, all that ran there)")
    return "".join(f"; {part}" for part in parts if part)


def _figures(one: Measurement, on_gpu: bool) -> list[str]:
    each = [f"{1000 * seconds / one.count:.3g}" for seconds in (one.median_s, one.p95_s, one.p99_s)]
    rate = (
        "" if one.per_second is None else f"{one.per_second:,.4g}" if one.per_second < 1e4 else f"{one.per_second:,.0f}"
    )
    return [
        *each,
        f"{rate} {one.unit}",
        "" if one.host_gib is None else f"{one.host_gib:.2f}",
        *(["" if one.gpu_gib is None else f"{one.gpu_gib:.2f}"] if on_gpu else []),
        "–" if one.ratio is None else f"{one.ratio:.2f}",
    ]


def _show_kernels(timed: Sequence[KernelTiming]) -> None:
    for group in dict.fromkeys(one.group for one in timed):
        show("")
        table = plain_table([group or "without a group", "median ms", "p95", "p99", "rounds", "ratio"])
        table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"
        for one in timed:
            if one.group == group:
                each = [f"{1000 * seconds:.4g}" for seconds in (one.median_s, one.p95_s, one.p99_s)]
                ratio = "baseline" if one.is_baseline else "–" if one.ratio is None else f"{one.ratio:.2f}"
                table.add_row(one.name.removeprefix("test_"), *each, str(one.num_samples), ratio)
        show(table)
