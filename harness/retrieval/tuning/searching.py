"""The search for the hyper-parameters of the multi-similarity loss, in place of the paper's unnamed AutoML."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import BaseModel

from harness.retrieval.settings import MultiSimilaritySettings
from harness.retrieval.tuning.database import Database
from harness.retrieval.tuning.studies import (
    TASK,
    conditions_of,
    do_tasks,
    first_number,
    is_surplus,
    open_study,
    put_back,
    search,
)
from harness.retrieval.tuning.values import LOGARITHMIC, NAMES, WIDE, SearchSpace, StudyState, Tried
from harness.types import InputError, Progress

PrunerName = Literal["median", "halving", "none"]

_NUM_RANDOM = 10
"""Trials before the sampler trusts what it has seen."""

_NUM_UNPRUNED = 4
"""Trials that must have run to their end before the median of their course ends another."""

_UNPRUNED_SHARE = 0.5
"""Of a training, in which the median ends none. While a model still learns fast, chance orders the trials: with a
quarter, 16 of 24 trials on rendered data were ended at the first look after it."""

_SEED, _RANKS, _NOTE, _FIGURES = "seed", "ranks", "note", "figures"


@dataclass(frozen=True)
class Attempt:
    """One trial, as the training that it asks for sees it.

    Attributes:
        settings: of the loss.
        number: of the trial; where a lost trial is tried again, that of the first time.
        seed: of the training; None for that of the study.
    """

    settings: MultiSimilaritySettings
    number: int
    seed: int | None
    _trial: Trial

    def look(self, step: int, value: float) -> None:
        """Report what the model is worth after so many steps.

        Raises:
            optuna.TrialPruned: it is not worth going on.
        """
        with warnings.catch_warnings():
            # A training that goes on from its checkpoint may come by a step for the second time.
            warnings.filterwarnings("ignore", message=".*is already reported.*")
            self._trial.report(value, step)
        if self._trial.should_prune():
            raise optuna.TrialPruned

    def give_up(self, why: str) -> None:
        """End the trial as one of the worst.

        Raises:
            optuna.TrialPruned: always.
        """
        self._trial.set_user_attr(_NOTE, why)
        raise optuna.TrialPruned

    def tell(self, figures: Mapping[str, float]) -> None:
        """Keep figures with the trial, for people."""
        self._trial.set_user_attr(_FIGURES, dict(figures))


def tune(
    database: Database,
    name: str,
    conditions: BaseModel,
    objective: Callable[[Attempt], float],
    *,
    num_trials: int,
    seed: int,
    space: SearchSpace = WIDE,
    first: Mapping[str, MultiSimilaritySettings] | None = None,
    pruner: PrunerName = "median",
    num_steps: int = 100,
    num_looks: int = 8,
    progress: Progress | None = None,
    after_trial: Callable[[StudyState], None] | None = None,
) -> StudyState:
    """Search for hyper-parameters until the study has so many finished trials, all workers together.

    Args:
        database: where the study is.
        name: of the study.
        conditions: what all of its trials have in common; a study of others is refused.
        objective: of an attempt; more is better. It may report by `Attempt.look`.
        num_trials: complete and pruned ones, those of earlier runs and of other workers included; at least 1.
        seed: of the sampler.
        space: what is searched.
        first: values to try first, by name.
        pruner: ``median`` ends what is below the median of the others at the same step, once half of the steps are
            made; ``halving`` goes on with the best third after the first look, after three times as many steps, ….
        num_steps: of a training.
        num_looks: that a training reports.
        progress: told of finished trials and of all.
        after_trial: called after each trial of this process.

    Raises:
        InputError: the database cannot be used, or has a study of this name and of other conditions.
    """
    if num_trials < 1:
        raise ValueError(f"expected at least 1 trial, got {num_trials}")
    with database.open(put_back) as storage:
        tasks = {task: settings.model_dump() for task, settings in (first or {}).items()}
        study = open_study(storage, name, conditions, tasks, database.shown)
        study.pruner = _pruner(pruner, num_steps, num_looks)
        sampler = partial(_sampler, seed)

        def tidied() -> None:
            if after_trial is not None:
                after_trial(_state(study))

        search(
            study, database.turn, lambda trial: objective(_attempt(trial, space)), num_trials, sampler, progress, tidied
        )
        return _state(study, with_importance=True)


def _sampler(seed: int, place: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed * 1_000_003 + place, n_startup_trials=_NUM_RANDOM, constant_liar=True)


def _pruner(name: PrunerName, num_steps: int, num_looks: int) -> optuna.pruners.BasePruner:
    if name == "none":
        return optuna.pruners.NopPruner()
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=max(1, num_steps // num_looks), reduction_factor=3)
    return optuna.pruners.MedianPruner(
        n_startup_trials=_NUM_UNPRUNED, n_warmup_steps=round(_UNPRUNED_SHARE * num_steps)
    )


def _attempt(trial: Trial, space: SearchSpace) -> Attempt:
    drawn = {
        name: trial.suggest_float(name, *getattr(space, name), log=name in LOGARITHMIC)
        for name in SearchSpace.model_fields
    }
    return Attempt(MultiSimilaritySettings(**drawn), first_number(trial), trial.user_attrs.get(_SEED), trial)


@dataclass(frozen=True)
class Repeat:
    """A training with given hyper-parameters and a seed that the search did not use."""

    settings: MultiSimilaritySettings
    seed: int

    @property
    def task(self) -> str:
        """Its name, by its values."""
        return (
            " ".join(f"{name}={value!r}" for name, value in self.settings.model_dump().items()) + f" seed={self.seed}"
        )


def repeat(
    database: Database,
    name: str,
    conditions: BaseModel,
    objective: Callable[[Attempt], tuple[float, Mapping[str, Sequence[int]]]],
    repeats: Sequence[Repeat],
    progress: Progress | None = None,
) -> dict[Repeat, dict[str, list[int]]]:
    """Train with given hyper-parameters and seeds, each once over all workers and for ever.

    Args:
        database: where the study is.
        name: of the study.
        conditions: as for `tune`.
        objective: a value, and what is to be kept: name -> (Q,) rank of each query's first right answer.
        repeats: what to train.
        progress: told of trainings done and of all.

    Returns:
        What was kept of each.

    Raises:
        InputError: as for `tune`.
    """
    wide = SearchSpace(alpha=(1e-9, 1e9), beta=(1e-9, 1e9), base=(0, 1), epsilon=(0, 1e9), weight=(1e-9, 1e9))

    def value_of(trial: Trial) -> float:
        seed = int(trial.user_attrs[TASK].rpartition("=")[2])
        value, ranks = objective(Attempt(_attempt(trial, wide).settings, first_number(trial), seed, trial))
        trial.set_user_attr(_RANKS, {which: [int(rank) for rank in kept] for which, kept in ranks.items()})
        return value

    with database.open(put_back) as storage:
        tasks = {one.task: one.settings.model_dump() for one in repeats}
        study = open_study(storage, name, conditions, tasks, database.shown)
        done = do_tasks(study, database.turn, value_of, list(tasks), progress)
        return {one: done[one.task].user_attrs[_RANKS] for one in repeats}


def read_study(database: Database, name: str) -> StudyState:
    """What a study holds, without adding to it.

    Raises:
        InputError: the database cannot be used, or has no such study.
    """
    with database.open() as storage:
        names = [one.study_name for one in storage.get_all_studies()]
        if name not in names:
            there = ", ".join(one for one in sorted(names) if not one.endswith(REPEATS)) or "none"
            raise InputError(f"{database.shown}: there is no study '{name}' (there are: {there})")
        return _state(optuna.load_study(study_name=name, storage=storage), with_importance=True)


def read_repeats(database: Database, name: str) -> dict[Repeat, dict[str, list[int]]]:
    """What `repeat` kept in a study so far; nothing where there is no such study.

    Raises:
        InputError: the database cannot be used.
    """
    with database.open() as storage:
        if name not in [one.study_name for one in storage.get_all_studies()]:
            return {}
        study = optuna.load_study(study_name=name, storage=storage)
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return {_repeat_of(one): one.user_attrs[_RANKS] for one in complete}


def _repeat_of(trial: FrozenTrial) -> Repeat:
    settings = MultiSimilaritySettings(**{name: trial.params[name] for name in NAMES})
    return Repeat(settings, int(trial.user_attrs[TASK].rpartition("=")[2]))


REPEATS = " (repeats)"
"""At the end of the name of the study that holds a search's repeats."""


def _state(study: optuna.Study, *, with_importance: bool = False) -> StudyState:
    trials = [_tried(one) for one in study.get_trials(deepcopy=False) if not is_surplus(one)]
    importance = _importance(study) if with_importance else {}
    return StudyState(study.study_name, conditions_of(study), trials, importance)


def _tried(trial: FrozenTrial) -> Tried:
    complete = set(NAMES) <= set(trial.params)
    first = first_number(trial)
    return Tried(
        number=trial.number,
        state=trial.state.name.lower(),
        settings=MultiSimilaritySettings(**{name: trial.params[name] for name in NAMES}) if complete else None,
        value=trial.value if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        course=dict(sorted(trial.intermediate_values.items())),
        task=trial.user_attrs.get(TASK),
        seconds=None if trial.duration is None else trial.duration.total_seconds(),
        note=trial.user_attrs.get(_NOTE),
        figures=trial.user_attrs.get(_FIGURES, {}),
        retry_of=None if first == trial.number else first,
    )


def _importance(study: optuna.Study) -> dict[str, float]:
    complete = [one.value for one in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]
    if len(complete) < _NUM_RANDOM or len(set(complete)) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found: dict[str, float] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return found
