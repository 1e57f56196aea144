"""What the quickstart says at its end: leaderboard rows, the page, the challenge JSON and the tables a person reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.jobs.results import copy_whole
from harness.pipeline import HISTOGRAM, Pipeline
from harness.progress import Reporter, silent
from harness.quickstart.job import ENSEMBLE, QuickstartResult
from harness.scoring.significance import mcnemar_exact, wilson_interval
from harness.spec import PAPER_DETECTORS
from harness.timing import StageTime
from harness.types import Score
from harness.workplace import Workplace

if TYPE_CHECKING:
    from rich.table import Table

RENDERED = "RENDERED data, not DeepFashion2"


@dataclass(frozen=True)
class Published:
    """Where the results of a quickstart lie.

    Attributes:
        submission: the challenge JSON of the ensemble with ``WBF_5`` boxes.
        board: the leaderboard's database.
        page: the first of the leaderboard's pages.
    """

    submission: Path
    board: Path
    page: Path


def publish(work: Workplace, result: QuickstartResult, report: Reporter = silent) -> Published:
    """Write the leaderboard's pages, a gallery of the ensemble's answers among them, and put the challenge JSON where
    people look."""
    from harness.data.deepfashion2 import read_split
    from harness.jobs.gallery import of_row
    from leaderboard.pages.gallery_page import write_gallery
    from leaderboard.pages.links import gallery_path
    from leaderboard.pages.site import write_site
    from leaderboard.store import Board

    assert result.ensemble is not None
    assert result.ensemble_row is not None
    row = result.ensemble_row
    pipeline = Pipeline(work, read_split(result.data, row.split), report=report)
    write_gallery(work.pages / gallery_path(row), of_row(pipeline, row, report=report), in_site=True)
    with Board(work.board) as board:
        page = write_site(board, work.pages)
    submission = work.root / "submissions" / "validation.json"
    copy_whole(result.ensemble.submission, submission)
    return Published(submission, Path(work.board), page)


def as_json(result: QuickstartResult, published: Published) -> dict[str, Any]:
    """All figures of the run as JSON values; accuracies in [0, 1]."""
    return {
        "data": str(result.data),
        "rendered": True,
        "num_queries": result.num_queries,
        "num_gallery": result.num_gallery,
        "chance_acc10": result.chance,
        "histogram_acc": _acc(result.histogram),
        "box_ap": {name: vars(ap) for name, ap in result.box_ap.items()},
        "num_boxes": result.num_boxes,
        "acc_ground_truth_boxes": {name: _acc(score) for name, score in result.on_truth.items()},
        "acc_fused_boxes": {name: _acc(score) for name, score in result.on_fused.items()},
        "training_seconds": result.training_seconds,
        "stage_seconds": [
            {"stage": stage.stage, "seconds": stage.seconds, "from_store": stage.from_store, "count": stage.count}
            for stage in result.stopwatch.stages
        ],
        "seconds": result.seconds,
        "peak_gib": result.peak_gib,
        "submission": str(published.submission),
        "leaderboard": str(published.board),
        "page": str(published.page),
    }


def _acc(score: Score | None) -> dict[str, float] | None:
    return None if score is None else {str(k): accuracy for k, accuracy in score.acc.items()}


def tables(result: QuickstartResult, published: Published) -> list[Any]:
    """The tables and lines that a person reads at the end; 80 columns suffice."""
    from rich.text import Text

    minutes, seconds = divmod(round(result.seconds), 60)
    return [
        _stage_table(result),
        _detection_table(result),
        _retrieval_table(result),
        Text.from_markup(_comparison(result)),
        f"Challenge JSON    {published.submission}\n"
        f"Leaderboard page  {published.page}\n"
        f"This run took {minutes} min {seconds:02d} s, with at most {result.peak_gib:.1f} GiB in all its processes.",
    ]


def _table(title: str, left: tuple[str, ...], right: tuple[str, ...], last: tuple[str, ...] = ()) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, collapse_padding=True)
    for heading in left:
        table.add_column(heading)
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in last:
        table.add_column(heading)
    return table


def _detection_table(result: QuickstartResult) -> Table:
    table = _table(
        f"\nDetection: validation split of {RENDERED}",
        ("boxes",),
        ("AP", "AP50", "boxes", "training"),
        ("AP50 against its best member",),
    )
    for row, (name, ap) in enumerate(result.box_ap.items()):
        table.add_row(
            name,
            _figure(ap.ap),
            _figure(ap.ap50),
            f"{result.num_boxes[name]:,}",
            _training_time(result, name),
            _against_members(result, name),
            end_section=row == len(PAPER_DETECTORS) - 1,
        )
    return table


def _training_time(result: QuickstartResult, name: str) -> str:
    seconds = result.training_seconds.get(f"train {name}")
    return "" if seconds is None else f"{seconds:.0f} s"


def _against_members(result: QuickstartResult, name: str) -> str:
    if not name.startswith("WBF_"):
        return ""
    members = PAPER_DETECTORS[: int(name[4:])]
    best = max(members, key=lambda member: result.box_ap[member].ap50 or 0.0)
    ours, theirs = result.box_ap[name].ap50, result.box_ap[best].ap50
    if ours is None or theirs is None:
        return ""
    return f"{ours - theirs:+.3f} {_verdict(ours - theirs)} {best}"


def _retrieval_table(result: QuickstartResult) -> Table:
    fused = f"WBF_{len(PAPER_DETECTORS)}"
    table = _table(
        f"\nRetrieval: validation split of {RENDERED};\nofficial protocol, {result.num_queries} queries, "
        f"{result.num_gallery} shop items; chance reaches Acc@10 {result.chance:.3f}",
        ("model",),
        (
            "Acc@1\nGT",
            "Acc@10\nGT",
            "95 %\ninterval",
            f"Acc@1\n{fused}",
            f"Acc@10\n{fused}",
            "95 %\ninterval",
            "training",
        ),
    )
    if result.histogram is not None:
        table.add_row(HISTOGRAM, *_accuracies(result.histogram), "", "", "", "untrained", end_section=True)
    for row, (name, on_truth) in enumerate(result.on_truth.items()):
        table.add_row(
            name,
            *_accuracies(on_truth),
            *_accuracies(result.on_fused[name]),
            _training_time(result, name),
            end_section=row == len(result.on_truth) - 2,
        )
    return table


def _accuracies(score: Score) -> tuple[str, str, str]:
    low, high = wilson_interval(int(_hits(score).sum()), score.num_queries)
    return _figure(score.acc[1]), _figure(score.acc[10]), f".{round(1000 * low):03d}–.{round(1000 * high):03d}"


def _comparison(result: QuickstartResult) -> str:
    lines = []
    for boxes, scores in (("GT", result.on_truth), (f"WBF_{len(PAPER_DETECTORS)}", result.on_fused)):
        singles = {name: score for name, score in scores.items() if name != ENSEMBLE}
        best = max(singles, key=lambda name: singles[name].acc[10])
        difference = scores[ENSEMBLE].acc[10] - singles[best].acc[10]
        test = mcnemar_exact(_hits(singles[best]), _hits(scores[ENSEMBLE]))
        lines.append(
            f"On {boxes} boxes the ensemble {_verdict(difference)} its best member {best} by {difference:+.3f} Acc@10 "
            f"(exact McNemar p = {test.p_value:.2g})."
        )
    return "\n".join(lines)


def _hits(score: Score) -> Any:
    return (score.hit_ranks > 0) & (score.hit_ranks <= 10)


def _verdict(difference: float) -> str:
    if difference == 0:
        return "equals"
    return "[green]beats[/]" if difference > 0 else "[red]loses to[/]"


def _stage_table(result: QuickstartResult) -> Table:
    table = _table("Seconds per stage, wall clock", ("stage",), ("runs", "from store", "seconds", "things", "each"))
    stages: dict[str, list[StageTime]] = {}
    for stage in result.stopwatch.stages:
        stages.setdefault(stage.stage, []).append(stage)
    for name, runs in stages.items():
        made = [run for run in runs if not run.from_store]
        if not made:
            continue
        seconds, count = sum(run.seconds for run in made), sum(run.count or 0 for run in made)
        table.add_row(
            name,
            str(len(runs)),
            str(len(runs) - len(made)),
            f"{seconds:.1f}",
            f"{count:,} {runs[0].unit}",
            f"{1000 * seconds / count:,.1f} ms" if count else "",
        )
    return table


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
