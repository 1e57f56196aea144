"""Searches that several processes share: persistent, resumable, and with exactly as many trials as asked for.

Optuna numbers the trials of a study one after the other, in the database. By that number it is decided who may go on,
so workers on several machines need nothing in common but the database: a trial is one too many if enough trials of
smaller numbers have not failed. All of these were there when it got its number, so no more than the wanted number can
finish; and where one of them fails, its values are put back and tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import BaseModel

from harness.retrieval.tuning.database import HEARTBEAT_S, MISSED
from harness.retrieval.tuning.workers import is_gone, this_process
from harness.training.cards import differences
from harness.types import InputError, Progress

TASK = "task"
"""The user attribute of a trial whose values were not drawn: a name that only one trial may finish under."""

_WORKER, _SURPLUS, _CONDITIONS, _HISTORY = "worker", "surplus", "conditions", "tried before"
_MOST_RETRIES = 3
_POLL_S = 0.2
Turn = Callable[[], AbstractContextManager[Any]]
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class _Surplus(Exception):
    """The trial that was begun is one too many."""


def open_study(
    storage: optuna.storages.RDBStorage,
    name: str,
    conditions: BaseModel,
    first: Mapping[str, Mapping[str, float]],
    where: str,
) -> optuna.Study:
    """The study of a name, made where there is none.

    Args:
        storage: of `harness.retrieval.tuning.database.Database.open`, with `put_back`.
        name: of the study.
        conditions: what all of its trials have in common.
        first: task -> values that are tried before others; those that are lacking are put in.
        where: the database, for messages.

    Raises:
        InputError: a study of this name is of other conditions.
    """
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
    if _CONDITIONS not in study.user_attrs:
        study.set_user_attr(_CONDITIONS, conditions.model_dump(mode="json"))
    there = study.user_attrs[_CONDITIONS]
    if there != conditions.model_dump(mode="json"):
        told = differences(_Any.model_validate(there), _Any.model_validate(conditions.model_dump(mode="json")))
        raise InputError(
            f"{where}: study '{name}' is of other conditions ({'; '.join(told[:3])}{'; …' if len(told) > 3 else ''}); "
            "give the same again to go on with it, or another name: --study NAME"
        )
    _fail_the_dead(study)
    trials = study.get_trials(deepcopy=False)
    has = {trial.user_attrs.get(TASK): trial for trial in sorted(trials, key=lambda one: one.state != TrialState.FAIL)}
    for task, values in first.items():
        if task not in has:
            study.enqueue_trial(dict(values), user_attrs={TASK: task})
        elif has[task].state == TrialState.FAIL:  # whoever saw it fail died before it was put back, or is about to
            put_back(study, has[task])
    return study


class _Any(BaseModel, extra="allow"):
    """Conditions as they stand in a database."""


def search(
    study: optuna.Study,
    turn: Turn,
    objective: Callable[[Trial], float],
    num_trials: int,
    sampler: Callable[[int], optuna.samplers.BaseSampler],
    progress: Progress | None = None,
    after_trial: Callable[[], None] | None = None,
) -> None:
    """Try values until a study has so many finished trials, all workers together, never more.

    Args:
        study: of `open_study`.
        turn: of the database, see `harness.retrieval.tuning.database.Database.turn`.
        objective: may raise `optuna.TrialPruned`.
        num_trials: complete and pruned ones; those of earlier runs count.
        sampler: of the trial at a place, from 0: a search that was interrupted goes on as it would have.
        progress: told of finished trials and of all.
        after_trial: called after each trial of this process.

    Raises:
        Exception: whatever the objective raised; its values are put back.
    """
    study.sampler = _placed(sampler)

    def claimed(trial: FrozenTrial, before: Sequence[FrozenTrial]) -> bool:
        return len(before) < num_trials and not _is_double(trial, before)

    while True:
        trials = _alive(study)
        finished = sum(trial.state in _FINISHED for trial in trials)
        if progress is not None:
            progress(finished, num_trials)
        if finished >= num_trials:
            return
        if sum(trial.state != TrialState.WAITING for trial in trials) < num_trials:
            _try_one(study, turn, objective, claimed)
            if after_trial is not None:
                after_trial()
        else:
            _wait(study)


def do_tasks(
    study: optuna.Study,
    turn: Turn,
    objective: Callable[[Trial], float],
    tasks: Sequence[str],
    progress: Progress | None = None,
) -> dict[str, FrozenTrial]:
    """Try the values that were put into a study under these names, each once over all workers.

    Args:
        study: of `open_study`, which put them in.
        turn: as for `search`.
        objective: as for `search`.
        tasks: names.
        progress: told of finished tasks and of all.

    Returns:
        The finished trial of every task.
    """

    def claimed(trial: FrozenTrial, before: Sequence[FrozenTrial]) -> bool:
        return trial.user_attrs.get(TASK) is not None and not _is_double(trial, before)

    while True:
        trials = _alive(study)
        done = {one.user_attrs.get(TASK): one for one in reversed(trials) if one.state in _FINISHED}
        if progress is not None:
            progress(sum(task in done for task in tasks), len(tasks))
        if all(task in done for task in tasks):
            return {task: done[task] for task in tasks}
        if any(trial.state == TrialState.WAITING for trial in trials):
            _try_one(study, turn, objective, claimed)
        elif any(trial.state == TrialState.RUNNING for trial in trials):
            _wait(study)
        else:
            lost = ", ".join(task for task in tasks if task not in done)
            raise InputError(f"{study.study_name}: gave up {lost}, whose process died {_MOST_RETRIES + 1} times")


def _try_one(
    study: optuna.Study,
    turn: Turn,
    objective: Callable[[Trial], float],
    claimed: Callable[[FrozenTrial, Sequence[FrozenTrial]], bool],
) -> None:
    begun: list[int] = []
    has_turn = ExitStack()

    def claim_and_try(trial: Trial) -> float:
        begun.append(trial.number)
        trials = study.get_trials(deepcopy=False)
        own = next(one for one in trials if one.number == trial.number)
        before = [one for one in trials if one.number < trial.number and one.state != TrialState.FAIL]
        if not claimed(own, before):
            trial.set_user_attr(_SURPLUS, True)
            if (TASK in own.user_attrs or _HISTORY in own.user_attrs) and not _is_double(own, before):
                _add_again(study, own, {})
            raise _Surplus
        trial.set_user_attr(_WORKER, this_process())
        has_turn.close()
        return objective(trial)

    try:
        has_turn.enter_context(turn())
        study.optimize(claim_and_try, n_trials=1, catch=(_Surplus,))
    except BaseException:
        if begun:
            own = study.get_trials(deepcopy=False)[begun[0]]
            if own.state == TrialState.FAIL and _is_replaced(study, own):
                return  # it was taken for dead, and another trial has its place: what it found does not count
            if own.state == TrialState.FAIL:
                put_back(study, own)
        raise
    finally:
        has_turn.close()


def _is_double(trial: FrozenTrial, before: Sequence[FrozenTrial]) -> bool:
    """Whether another has its task; or its values, where two workers put a lost trial back."""
    names = [name for name in (TASK, _HISTORY) if name in trial.user_attrs]
    return any(one.user_attrs.get(name) == trial.user_attrs[name] for one in before for name in names)


def _alive(study: optuna.Study) -> list[FrozenTrial]:
    _fail_the_dead(study)
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.FAIL]


def _wait(study: optuna.Study) -> None:
    time.sleep(_POLL_S)
    optuna.storages.fail_stale_trials(study)


def put_back(study: optuna.Study, trial: FrozenTrial) -> None:
    """Have a failed trial's values tried again, with what was seen of it; not for ever, if it kills its process."""
    history = [*trial.user_attrs.get(_HISTORY, []), trial.number]
    if len(history) > _MOST_RETRIES or trial.user_attrs.get(_SURPLUS):
        return
    _add_again(study, trial, {_HISTORY: history})


def _add_again(study: optuna.Study, trial: FrozenTrial, changes: Mapping[str, Any]) -> None:
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            # Without its process: whoever takes it up would be thought dead before it has written its own.
            user_attrs={name: value for name, value in trial.user_attrs.items() if name != _WORKER} | {**changes},
            system_attrs=trial.system_attrs,
            intermediate_values=trial.intermediate_values,
        )
    )


def _is_replaced(study: optuna.Study, trial: FrozenTrial) -> bool:
    later = study.get_trials(deepcopy=False)[trial.number + 1 :]
    return any(trial.number in one.user_attrs.get(_HISTORY, []) for one in later)


def first_number(trial: Trial | FrozenTrial) -> int:
    """The number under which the values of a trial were tried for the first time."""
    history: list[int] = trial.user_attrs.get(_HISTORY, [])
    return history[0] if history else trial.number


def is_surplus(trial: FrozenTrial) -> bool:
    """Whether a trial failed only because there were enough."""
    return bool(trial.user_attrs.get(_SURPLUS))


def conditions_of(study: optuna.Study) -> dict[str, Any]:
    """What `open_study` wrote into it."""
    told: dict[str, Any] = study.user_attrs.get(_CONDITIONS, {})
    return told


def _fail_the_dead(study: optuna.Study) -> None:
    """Trials of processes of this machine that are gone need not wait for their heartbeat to be missed."""

    def is_over(trial: FrozenTrial) -> bool:
        if _WORKER in trial.user_attrs:
            return is_gone(trial.user_attrs[_WORKER])
        # Its worker was killed before it had said anything, heartbeat included.
        assert trial.datetime_start is not None
        return bool(datetime.now() - trial.datetime_start > timedelta(seconds=MISSED * HEARTBEAT_S))

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if is_over(trial):
            try:
                study.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                continue  # another worker was first
            put_back(study, study.get_trials(deepcopy=False)[trial.number])


def _placed(sampler: Callable[[int], optuna.samplers.BaseSampler]) -> optuna.samplers.BaseSampler:
    """A sampler a trial, by the trial's place among those that are no second tries.

    That never changes, whatever becomes of the trials, so no two have one place.
    """

    class Placed(optuna.samplers.BaseSampler):  # type: ignore[misc]
        def __init__(self) -> None:
            self.current = sampler(0)

        def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
            earlier = study.get_trials(deepcopy=False)[: trial.number]
            self.current = sampler(sum(_HISTORY not in one.user_attrs for one in earlier))
            self.current.before_trial(study, trial)

        def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Any:
            return self.current.infer_relative_search_space(study, trial)

        def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:
            found: dict[str, Any] = self.current.sample_relative(study, trial, search_space)
            return found

        def sample_independent(
            self, study: optuna.Study, trial: FrozenTrial, param_name: str, distribution: Any
        ) -> Any:
            return self.current.sample_independent(study, trial, param_name, distribution)

        def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
            self.current.after_trial(study, trial, state, values)

    return Placed()
