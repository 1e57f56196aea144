"""What a study found, as pictures: its history, its slices, and which hyper-parameters matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.retrieval.tuning.values import LOGARITHMIC, NAMES, StudyState, Tried

_COLOURS = {"complete": "#1b5e8c", "pruned": "#b0b0b0", "best": "#c2410c", "given": "#2e7d32"}
_SIGNS = {"alpha": "α", "beta": "β", "base": "λ (base)", "epsilon": "ε of the miner", "weight": "weight of the loss"}


def draw(state: StudyState, folder: Path, mark: str) -> list[Path]:
    """Write ``history.png``, ``slices.png`` and, with enough trials, ``importance.png``.

    Args:
        state: of the study.
        folder: that is there already.
        mark: what every title ends with; says that data were rendered.

    Returns:
        The files; none for a study without a finished trial.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    finished = [one for one in state.tried if one.value is not None and one.settings is not None]
    if not finished:
        return []
    title = f"{state.name}{mark}"
    written = []

    def write(name: str, size: tuple[float, float], paint: Any) -> None:
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title)
        paint(figure)
        path = folder / name
        figure.savefig(path, dpi=110)
        written.append(path)

    write("history.png", (9, 4.5), lambda figure: _history(figure, finished))
    write("slices.png", (15, 3.8), lambda figure: _slices(figure, finished, state.conditions["space"]))
    if state.importance:
        write("importance.png", (7, 3), lambda figure: _importance(figure, state.importance))
    return written


def _history(figure: Any, finished: Sequence[Tried]) -> None:
    from matplotlib.ticker import MaxNLocator

    left, right = figure.subplots(1, 2)
    for kind in ("pruned", "complete"):
        some = [one for one in finished if one.state == kind]
        if some:
            left.scatter([one.number for one in some], [one.value for one in some], s=18, c=_COLOURS[kind], label=kind)
    for one in finished:
        if one.task is not None:
            left.annotate(
                one.task,
                (one.number, one.value),
                fontsize=7,
                rotation=90,
                ha="center",
                va="top",
                xytext=(0, -6),
                textcoords="offset points",
            )
    numbers: list[int] = []
    best: list[float] = []
    for one in finished:
        if one.state == "complete" and one.value is not None:
            numbers.append(one.number)
            best.append(max([one.value, *best[-1:]]))
    left.step(numbers, best, where="post", c=_COLOURS["best"], label="best so far")
    left.set(xlabel="trial", ylabel="objective (of a pruned trial the last seen)")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(fontsize=8)
    for one in finished:
        right.plot(list(one.course), list(one.course.values()), c=_COLOURS[one.state], lw=0.9, alpha=0.7)
    top = max((one for one in finished if one.state == "complete"), key=lambda one: one.value or 0.0, default=None)
    if top is not None:
        right.plot(list(top.course), list(top.course.values()), c=_COLOURS["best"], lw=2, label=f"trial {top.number}")
        right.legend(fontsize=8)
    right.set(xlabel="step of the training", ylabel="objective")


def _slices(figure: Any, finished: Sequence[Tried], space: Mapping[str, Sequence[float]]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    for axis, name in zip(figure.subplots(1, len(NAMES), sharey=True), NAMES, strict=True):
        for kind in ("pruned", "complete"):
            some = [one for one in finished if one.state == kind]
            axis.scatter(
                [getattr(one.settings, name) for one in some], [one.value for one in some], s=16, c=_COLOURS[kind]
            )
        given = [one for one in finished if one.task is not None]
        values = [getattr(one.settings, name) for one in given]
        axis.scatter(values, [one.value for one in given], s=50, facecolors="none", edgecolors=_COLOURS["given"])
        axis.set_xlabel(_SIGNS[name])
        if name in LOGARITHMIC:
            axis.set_xscale("log")
            low, high = space[name]
            axis.set_xlim(low / 1.3, high * 1.3)
            axis.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 1000 else (1.0, 3.0)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(NullFormatter())
    figure.axes[0].set_ylabel("objective")
    figure.supxlabel("dark: complete, light: pruned, circled: given by name", fontsize=8)


def _importance(figure: Any, importance: Mapping[str, float]) -> None:
    axis = figure.subplots()
    names = sorted(importance, key=lambda name: importance[name])
    bars = axis.barh([_SIGNS[name] for name in names], [importance[name] for name in names], color=_COLOURS["complete"])
    axis.bar_label(bars, fmt="%.2f", padding=3)
    axis.set(xlabel="share of what decides whether a trial is among the best (PED-ANOVA)", xlim=(0, 1))
