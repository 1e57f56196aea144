"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.commands.options import plain
from harness.types import RANKS, BoxAP

if TYPE_CHECKING:
    from harness.jobs.fusion_lab import FusionFit
    from harness.jobs.step_gains import StepGain
    from harness.scoring.ladder import Rung


def ladder_table(rungs: Sequence[Rung]) -> Any:
    """The rungs of an oracle ladder, and what is left for the ranking."""
    table = plain_table(["perfect from here on", *(f"Acc@{k}" for k in RANKS), "gain at 10"])
    for number, rung in enumerate(rungs):
        gained = f"{rung.gained[10]:+.4f}" if number else ""
        table.add_row(f"{'+ ' if number else ''}{rung.name}", *figures(rung.acc, 4), gained)
    left = 1 - rungs[-1].acc[10]
    table.add_row("+ ranking", *figures(dict.fromkeys(RANKS, 1.0), 4), f"{left:+.4f}")
    return table


def gains_table(gains: Sequence[StepGain]) -> Any:
    """What every post-processing step gains or loses against the step before."""
    table = plain_table(["up to", "Acc@1", "Acc@10", "gain at 10", "95 % interval", "p"])
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"  # the figures are what counts
    for gain in gains:
        cells = [f"{gain.score.acc[k]:.4f}" for k in (1, 10)]
        if gain.against_before is not None:
            (low, high), told = gain.against_before.interval, gain.against_before
            cells += [f"{told.difference:+.4f}", f"{low:+.4f} to {high:+.4f}", f"{told.test.p_value:.2g}"]
        table.add_row(gain.step if gain.against_before is None else f"| {gain.step}", *cells)
    return table


def fusion_table(fits: Mapping[str, FusionFit]) -> Any:
    """What a search for the settings of fusions found, and what it is worth on photos that it did not see."""
    reports = bool(next(iter(fits.values())).report)
    table = plain_table(["fusion", "trials", "searched", *(["defaults", "fitted", "best detector"] if reports else [])])
    for name, fit in fits.items():
        cells = [name, str(fit.num_trials), f"{fit.value:.3f}"]
        if reports:
            best, told = fit.report["best_member"], fit.report
            cells += [f"{told['defaults']:.3f}", f"{told['fitted']:.3f}", f"{told['best_member_value']:.3f} {best}"]
        table.add_row(*cells)
    return table


def fusion_lines(fits: Mapping[str, FusionFit]) -> list[str]:
    """Of each fusion what settings were found, and whether they are better than the defaults beyond chance."""
    lines = []
    for name, fit in fits.items():
        lines.append(f"{name}: {fusion_words(fit.settings)}")
        if "p" in fit.report:
            told, (low, high) = fit.report, fit.report["interval"]
            lines.append(
                f"  against the defaults {told['fitted'] - told['defaults']:+.3f}, 95 % interval {low:+.3f} to "
                f"{high:+.3f}, p {told['p']:.2g} (exact McNemar, {told['num_queries']} queries)"
            )
        if fit.report and fit.report["fitted"] < fit.report["defaults"]:
            lines.append(
                f"  worse than the defaults where the search did not look; these are back by: run.py detect '{name}' "
                "--data DIR --fusion defaults --keep"
            )
    return lines


def fusion_words(settings: Mapping[str, Any]) -> str:
    """Settings of a fusion in a line; of a calibration only its kind."""
    words = {}
    for name, value in settings.items():
        if value is None:
            continue
        if name == "calibrations":
            value = "+".join(dict.fromkeys("none" if one is None else str(one["kind"]) for one in value))
        elif name == "weights":
            value = "[" + ", ".join(f"{weight:.3g}" for weight in value) + "]"
        words[name] = value
    return plain(words)


def ms_loss_lines(told: Mapping[str, Any]) -> list[str]:
    """What a search for the multi-similarity loss's hyper-parameters has tried, and the best of it."""
    from harness.jobs.tuned_losses import in_words

    conditions, counts = told["conditions"], told["num_trials"]
    lines = [
        f"study '{told['study']}' in {told['storage']}: {conditions['model']} at scale {conditions['scale']}, "
        f"{conditions['num_steps']} steps a training{', RENDERED photos' if told['rendered'] else ''}",
        "trials: " + ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "complete"),
    ]
    if told["best"] is not None:
        best = told["best"]
        lines.append(f"best: trial {best['trial']}, {conditions['objective']} {best['value']:.3f}")
        lines.append(f"  {in_words(best['settings'])}")
    if told["importance"]:
        lines.append("importance: " + plain(told["importance"]))
    if told["repeats"] is None:
        lines.append("no repeats yet: what the best is worth beside the defaults is not known")
        return lines
    repeats = told["repeats"]
    compared = repeats["comparison"]
    trial = repeats["candidates"][0]["trial"]
    lines.append(
        f"winner: trial {trial}, against the defaults on {repeats['num_queries']['report']} queries that the search "
        f"did not see, {len(repeats['seeds'])} trainings each:"
    )
    for name, what in (("acc@10", "Acc@10"), ("mean", conditions["objective"])):
        one = compared[name]
        low, high = one["interval"]
        p = f", p {one['p_value']:.2g} (sign flips over queries)" if "p_value" in one else ""
        lines.append(f"  {what} {one['difference']:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}{p}")
    low, high = compared["mean"]["interval"]
    if not repeats["better"]:
        lines.append("  NOT better than the defaults where the search did not look")
    elif low <= 0:
        lines.append("  better than the defaults, but not beyond what chance does")
    return lines


def ms_loss_table(repeats: Mapping[str, Any]) -> list[Any]:
    """Candidates of a search beside the defaults: means over trainings with 95 % intervals, then their values."""
    from harness.jobs.tuned_losses import in_words

    halves = (("search", "searched"), ("report", "others"))
    table = plain_table(["trial", *(f"{what} {half}" for _, half in halves for what in ("mean", "Acc@10"))])
    values = []
    for one in [*repeats["candidates"], repeats["defaults"]]:
        name = "defaults" if one is repeats["defaults"] else str(one["trial"])
        cells = [one[half][what] for half, _ in halves for what in ("mean", "acc@10")]
        table.add_row(name, *(f"{mean:.3f} ±{high - mean:.3f}" for mean, _, high in cells))
        values.append(f"{name}: {in_words(one['settings'])}")
    return [table, "", *values]


def ap_table(found: Mapping[str, BoxAP], what: str) -> Any:
    """Box AP of detectors and fusions on a split, also by the annotated garments' size (COCO's limits)."""
    table = plain_table([f"boxes of {what}", "AP", "AP50", "AP75", "small", "medium", "large"])
    for name, ap in found.items():
        values = (ap.ap, ap.ap50, ap.ap75, ap.ap_small, ap.ap_medium, ap.ap_large)
        table.add_row(name, *("" if value is None else f"{value:.3f}" for value in values))
    return table


def figures(acc: Mapping[int, float], digits: int) -> list[str]:
    """Acc@k of every k with so many digits."""
    return [f"{acc[k]:.{digits}f}" for k in RANKS]


def plain_table(headings: Sequence[str], first_width: int = 0) -> Any:
    """A table without a frame: texts in the first column, numbers in the others."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), collapse_padding=True, header_style="bold"
    )
    for number, heading in enumerate(headings):
        table.add_column(
            heading, justify="right" if number else "left", no_wrap=True, min_width=0 if number else first_width
        )
    return table
