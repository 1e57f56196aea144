"""What a search for the multi-similarity loss's hyper-parameters found, told and kept."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from harness.jobs.ms_loss_bench import OBJECTIVE, database_of, study_folder
from harness.jobs.tuned_losses import entry_name
from harness.retrieval.tuning.values import DEFAULTS, NAMES, StudyState
from harness.scoring.repeats import bootstrap_over_seeds, compare_over_seeds, over_seeds
from harness.training.cards import write_text
from harness.types import RANKS, Bools
from harness.workplace import Workplace

if TYPE_CHECKING:
    from harness.retrieval.settings import MultiSimilaritySettings
    from harness.retrieval.tuning.searching import Repeat

_STATES = ("complete", "pruned", "running", "waiting", "fail")


def summary_of(work: Workplace, study: str, storage: str | None = None) -> dict[str, Any]:
    """What a study holds, as JSON values; also written into the study's folder, with a list of trials and plots.

    Args:
        work: the working folder.
        study: name of the study.
        storage: as for `harness.jobs.ms_loss_bench.Request`.

    Returns:
        ``study``, ``storage``, ``rendered``, ``conditions``, ``num_trials`` by state, ``best`` (the trial of the
        highest objective; None without), ``importance``, ``repeats`` (None before at least two of the defaults and of
        another candidate are done) and ``files``.

    Raises:
        InputError: the database cannot be used, or has no such study.
    """
    from harness.retrieval.tuning.plots import draw
    from harness.retrieval.tuning.searching import REPEATS, read_repeats, read_study

    database = database_of(work, storage)
    state = read_study(database, study)
    told: dict[str, Any] = {
        "study": study,
        "storage": database.shown,
        "rendered": bool(state.conditions["rendered"]),
        "conditions": dict(state.conditions),
        "num_trials": {name: state.count(name) for name in _STATES},
        "best": next((_best(state, one.number) for one in state.ranked), None),
        "importance": dict(state.importance),
        "repeats": _repeated(state, read_repeats(database, study + REPEATS)),
    }
    folder = study_folder(work, study)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".report.lock"):
        plots = draw(state, folder, " (RENDERED photos)" if told["rendered"] else "")
        told["files"] = [str(folder / "trials.csv"), str(folder / "summary.json"), *map(str, plots)]
        write_text(folder / "trials.csv", _as_csv(state))
        write_text(folder / "summary.json", json.dumps(told, indent=1) + "\n")
    return told


def keep_winner(work: Workplace, told: Mapping[str, Any]) -> str:
    """Keep the winner of a summary in the working folder, for trainings from now on.

    Args:
        work: the working folder.
        told: a summary that has repeats.

    Returns:
        The name under which it is kept, ``model/scale``.

    Raises:
        InputError: the file of kept hyper-parameters is damaged.
    """
    repeats = told["repeats"]
    winner = repeats["candidates"][0]
    name = entry_name(told["conditions"]["model"], told["conditions"]["scale"])
    entry = {
        "settings": winner["settings"],
        "trial": winner["trial"],
        "objective": OBJECTIVE,
        "better": repeats["better"],
        **{key: told[key] for key in ("study", "storage", "rendered", "conditions", "num_trials")},
        **{key: repeats[key] for key in ("seeds", "num_queries", "candidates", "defaults", "comparison")},
    }
    work.keep_ms_loss(name, entry)
    return name


def _best(state: StudyState, number: int) -> dict[str, Any]:
    one = next(tried for tried in state.tried if tried.number == number)
    assert one.settings is not None
    return {"trial": number, "settings": one.settings.model_dump(), "value": one.value, "figures": dict(one.figures)}


def _repeated(state: StudyState, kept: Mapping[Repeat, Mapping[str, Sequence[int]]]) -> dict[str, Any] | None:
    """Candidates by their mean objective on the half of the search, best first; the other half only reports."""
    seeds: dict[MultiSimilaritySettings, set[int]] = {}
    for one in kept:
        seeds.setdefault(one.settings, set()).add(one.seed)
    of_defaults = seeds.pop(DEFAULTS, set())
    common = {settings: some & of_defaults for settings, some in seeds.items()}
    most = max(map(len, common.values()), default=0)
    if most < 2:
        return None
    chosen = {settings: sorted(some) for settings, some in common.items() if len(some) == most}

    def hits(settings: MultiSimilaritySettings, used: Sequence[int], half: str) -> dict[int, Bools]:
        by_seed = {one.seed: ranks[half] for one, ranks in kept.items() if one.settings == settings}
        ranks_RQ = np.array([by_seed[seed] for seed in used])
        return {k: (ranks_RQ > 0) & (ranks_RQ <= k) for k in RANKS}

    def worth(settings: MultiSimilaritySettings, used: Sequence[int]) -> dict[str, Any]:
        trial = next((one.number for one in state.ranked if one.settings == settings), None)
        of_halves = {half: _intervals(hits(settings, used, half)) for half in ("search", "report")}
        return {"trial": trial, "settings": settings.model_dump(), "seeds": list(used), **of_halves}

    candidates = [worth(settings, used) for settings, used in chosen.items()]
    candidates.sort(key=lambda one: -one["search"]["mean"][0])
    winner = next(one for one in chosen if one.model_dump() == candidates[0]["settings"])
    used = chosen[winner]
    first, second = hits(DEFAULTS, used, "report"), hits(winner, used, "report")
    mean_first, mean_second = _mean(first), _mean(second)
    difference = float((mean_second - mean_first).mean())
    compared = {
        "acc@10": {
            "difference": float(second[10].mean() - first[10].mean()),
            "interval": bootstrap_over_seeds(first[10], second[10]),
            "p_value": compare_over_seeds(first[10], second[10]).p_queries,
        },
        "mean": {"difference": difference, "interval": bootstrap_over_seeds(mean_first, mean_second)},
    }
    return {
        "seeds": used,
        "num_queries": {half: len(hits(winner, used, half)[10][0]) for half in ("search", "report")},
        "candidates": candidates,
        "defaults": worth(DEFAULTS, used),
        "comparison": compared,
        "better": difference > 0,
    }


def _mean(hits: Mapping[int, Bools]) -> NDArray[np.float64]:
    """(R, Q): the objective of each training and query."""
    mean: NDArray[np.float64] = np.mean([hits[k] for k in RANKS], axis=0)
    return mean


def _intervals(hits: Mapping[int, Bools]) -> dict[str, list[float | None]]:
    """Mean over trainings and its 95 % interval, of the objective and of Acc@1 and Acc@10."""
    of = {"mean": _mean(hits), "acc@1": hits[1], "acc@10": hits[10]}
    found = {name: over_seeds(values.mean(axis=1).tolist()) for name, values in of.items()}
    return {name: [one.mean, one.low, one.high] for name, one in found.items()}


def _as_csv(state: StudyState) -> str:
    text = io.StringIO()
    rows = csv.writer(text)
    figures = [f"acc@{k}" for k in RANKS]
    rows.writerow(["trial", "state", "given as", "retry of", *NAMES, "objective", *figures, "looks", "seconds", "note"])
    for one in state.tried:
        values = ["" if one.settings is None else getattr(one.settings, name) for name in NAMES]
        head = [one.number, one.state, one.task or "", "" if one.retry_of is None else one.retry_of]
        of_figures = [one.figures.get(name, "") for name in figures]
        last = [len(one.course), "" if one.seconds is None else round(one.seconds, 1), one.note or ""]
        rows.writerow([*head, *values, "" if one.value is None else one.value, *of_figures, *last])
    return text.getvalue()
