"""A study is shared, exact, and goes on whatever happens to those who work on it."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from pydantic import BaseModel

from harness.data.garments import garments_of
from harness.retrieval.evaluation import Judge
from harness.retrieval.settings import MultiSimilaritySettings
from harness.retrieval.training import train
from harness.retrieval.tuning import studies
from harness.retrieval.tuning.database import Database
from harness.retrieval.tuning.searching import REPEATS, Repeat, read_repeats, read_study, repeat, tune
from harness.retrieval.tuning.values import DEFAULTS, NARROW, WANG, WIDE
from harness.retrieval.tuning.workers import is_gone, this_process
from harness.training.fitting import read_progress
from harness.types import InputError

ROOT = Path(__file__).parents[2]
FIRST = {"defaults": DEFAULTS, "Wang et al.": WANG}


class Conditions(BaseModel):
    data: str = "these photos"
    recipe: dict[str, int] = {"steps": 4}


def worth(settings: MultiSimilaritySettings) -> float:
    return -abs(settings.alpha - 3) / 10 - abs(settings.base - 0.3)


def run(database, objective=None, *, num_trials=6, **how):
    given = {"seed": 0, "first": FIRST, "pruner": "none"} | how
    conditions = given.pop("conditions", Conditions())
    chosen = objective or (lambda attempt: worth(attempt.settings))
    return tune(database, "m8", conditions, chosen, num_trials=num_trials, **given)


@pytest.fixture
def database(tmp_path) -> Database:
    return Database.at(tmp_path / "deep" / "ms-loss.sqlite")


def finished(state):
    return [one for one in state.tried if one.state in ("complete", "pruned")]


def test_what_is_known_is_tried_first_and_the_rest_lies_in_the_space(database):
    state = run(database, num_trials=14, space=NARROW)
    assert [one.settings for one in state.tried[:2]] == [DEFAULTS, WANG]
    assert [one.task for one in state.tried[:3]] == ["defaults", "Wang et al.", None]
    for one in state.tried[2:]:
        for name, (low, high) in NARROW.model_dump().items():
            assert low <= getattr(one.settings, name) <= high
    assert len({one.settings for one in state.tried}) == 14
    best = max(state.tried, key=lambda one: worth(one.settings))
    assert state.ranked[0] == best
    assert best.value == pytest.approx(worth(best.settings))
    assert set(state.importance) == set(WIDE.model_dump())


def test_a_study_goes_on_as_it_would_have(database, tmp_path):
    whole = run(Database.at(tmp_path / "other.sqlite"), num_trials=13)
    calls = 0

    def stopped(attempt):
        nonlocal calls
        calls += 1
        if calls == 9:  # the twelfth of the study, which the sampler has drawn
            raise KeyboardInterrupt
        return worth(attempt.settings)

    assert len(run(database, num_trials=3).tried) == 3
    with pytest.raises(KeyboardInterrupt):
        run(database, stopped, num_trials=14)
    told = []
    resumed = run(database, num_trials=13, progress=lambda *now: told.append(now))
    assert resumed.count("fail") == 1
    assert [one.settings for one in finished(resumed)] == [one.settings for one in whole.tried]
    assert [one.value for one in finished(resumed)] == [one.value for one in whole.tried]
    assert told[-1] == (13, 13)
    before = len(resumed.tried)
    assert len(run(database, num_trials=13).tried) == before  # there are enough


def test_workers_that_race_make_exactly_as_many_trials_as_asked_for(database):
    done, lock = [], threading.Lock()

    def objective(attempt):
        time.sleep(0.02)
        with lock:
            done.append(attempt.settings)
        return worth(attempt.settings)

    with ThreadPoolExecutor(4) as pool:
        states = list(pool.map(lambda _: run(database, objective, num_trials=11), range(4)))
    assert all(len(finished(state)) == 11 for state in states)
    assert len(done) == len(set(done)) == 11
    assert done.count(DEFAULTS) == done.count(WANG) == 1
    run(database, objective, num_trials=15)
    assert len(done) == 15


WORKER = """
import os, socket, sys, time
from pathlib import Path
folder, url, name, host = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[5]
num_trials, heartbeat_s = int(sys.argv[4]), int(sys.argv[6])
sys.path.insert(0, {root!r})
socket.gethostname = lambda: host
from harness.retrieval.tuning.database import Database
from harness.retrieval.tuning.searching import tune
from tests.retrieval.test_tuning import FIRST, Conditions, worth

def objective(attempt):
    attempt.look(1, worth(attempt.settings) - 1)
    if name == "dies":
        (folder / "dying").write_text(str(attempt.number))
        time.sleep(600)
    time.sleep(0.02)
    with open(folder / "done.txt", "a") as log:
        log.write(f"{{attempt.settings!r}}\\n")
    return worth(attempt.settings)

tune(Database(url, heartbeat_s=heartbeat_s), "m8", Conditions(), objective, num_trials=num_trials, seed=0, first=FIRST,
     pruner="none")
"""


def start(folder: Path, database: Database, name: str, host: str, heartbeat_s: int) -> subprocess.Popen[bytes]:
    script = WORKER.format(root=str(ROOT))
    arguments = [str(folder), database.url, name, "9", host, str(heartbeat_s)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen([sys.executable, "-c", script, *arguments], cwd=ROOT, env=environment)


def kill_one_of_three(folder: Path, database: Database, host: str) -> None:
    # Nobody waits for the heart of a process of this machine: there a busy one's may be as slow as it likes.
    heartbeat_s = 60 if host == socket.gethostname() else 2
    dies = start(folder, database, "dies", host, heartbeat_s)
    while not (folder / "dying").exists():
        assert dies.poll() is None
        time.sleep(0.05)
    others = [start(folder, database, name, socket.gethostname(), heartbeat_s) for name in ("one", "two")]
    os.kill(dies.pid, signal.SIGKILL)
    dies.wait()
    assert [other.wait(timeout=200) for other in others] == [0, 0]
    state = read_study(database, "m8")
    assert len(finished(state)) == 9
    assert (state.count("running"), state.count("waiting")) == (0, 0)
    failed = [one for one in state.tried if one.state == "fail"]
    assert [one.number for one in failed] == [int((folder / "dying").read_text())]
    again = [one for one in state.tried if one.retry_of == failed[0].number]
    assert [(one.settings, one.state, one.task) for one in again] == [(failed[0].settings, "complete", failed[0].task)]
    assert list(again[0].course) == [1]
    done = (folder / "done.txt").read_text().splitlines()
    assert len(done) == len(set(done)) == 9


@pytest.mark.slow
@pytest.mark.parametrize("host", ["here", "elsewhere"])
def test_a_killed_worker_is_noticed_and_its_trial_is_tried_again(host, database, tmp_path):
    # Of another machine nothing is known but that its heartbeat is no longer heard.
    kill_one_of_three(tmp_path, database, socket.gethostname() if host == "here" else host)


def test_who_is_known_to_be_gone():
    host, pid, began = json.loads(this_process())
    assert not is_gone(this_process())
    assert is_gone(json.dumps([host, pid, began - 100]))  # another had this number then
    assert not is_gone(json.dumps(["elsewhere", pid, began - 100]))
    ended = subprocess.Popen(["true"])
    told = json.dumps([host, ended.pid, time.time()])
    ended.wait()
    assert is_gone(told)


def test_who_was_taken_for_dead_does_not_count(database):
    numbers = []

    def objective(attempt):
        numbers.append(attempt.number)
        if len(numbers) == 2:  # while it computes, another takes its heart for still
            with database.open(studies.put_back) as storage:
                study = optuna.load_study(study_name="m8", storage=storage)
                study.tell(attempt.number, state=optuna.trial.TrialState.FAIL)
                studies.put_back(study, study.trials[attempt.number])
        return worth(attempt.settings)

    state = run(database, objective, num_trials=4)
    assert len(finished(state)) == 4
    assert state.count("fail") == 1
    assert numbers[2] == numbers[1]  # the values, and with them the folder, are those of the first time


def test_values_that_kill_their_process_are_not_tried_for_ever(database):
    with database.open(studies.put_back) as storage:
        study = studies.open_study(storage, "m8", Conditions(), {"deadly": DEFAULTS.model_dump()}, "here")
        for _ in range(4):
            with pytest.warns(UserWarning, match="Heartbeat"):
                trial = study.ask()
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            studies.put_back(study, study.trials[-1])
        assert [one.state.name for one in study.trials] == ["FAIL"] * 4
        with pytest.raises(InputError, match="gave up deadly, whose process died 4 times"):
            studies.do_tasks(study, database.turn, lambda _: 0.0, ["deadly"])


@pytest.mark.parametrize(
    "other", [{"data": "other photos"}, {"recipe": {"steps": 5}}, {"recipe": {"steps": 4, "new": 1}}]
)
def test_a_study_of_other_conditions_is_refused(other, database):
    run(database, num_trials=1)
    with pytest.raises(
        InputError, match=r"study 'm8' is of other conditions \((data|recipe\.\w+): .* there, .* wanted"
    ):
        run(database, conditions=Conditions(**other))
    assert len(read_study(database, "m8").tried) == 2  # one done, one waiting


def test_an_error_leaves_the_trial_to_be_tried_again(database):
    def fails(attempt):
        raise InputError("the photos are gone")

    with pytest.raises(InputError, match="the photos are gone"):
        run(database, fails)
    state = run(database, num_trials=3)
    assert state.count("fail") == 1
    assert [one.settings for one in finished(state)].count(DEFAULTS) == 1


def test_pruning_ends_a_training_early(database, recipe, train_split, tmp_path):
    parts = [garments_of(train_split, train_split.photos.image_ids)]

    def objective(attempt):
        poor = attempt.number == 4
        if not poor:  # the first ones run to their end, without a network
            for step in (2, 4, 6, 8):
                attempt.look(step, step / 10)
            return 0.8
        steps = iter((2, 4, 6, 8))

        def look(embedder):
            attempt.look(next(steps), 0.1)
            return {"mean": 0.1}

        changed = recipe.with_multi_similarity("tiny", attempt.settings)
        judge = Judge(2, look, figure="mean")
        train("m12", changed, "tiny", parts, tmp_path / "t", seed=1, deepfashion2_only=True, judge=judge)
        raise AssertionError("it was not ended")

    state = run(database, objective, num_trials=5, pruner="median", num_steps=8, num_looks=4)
    last = state.tried[-1]
    assert (last.state, last.value, dict(last.course)) == (
        "pruned",
        0.1,
        {2: 0.1, 4: 0.1},
    )  # none is ended before half of the steps
    assert not (tmp_path / "t" / "weights.pt").exists()
    told = read_progress(tmp_path / "t")
    assert told is None or told[0] < 8


def test_halving_keeps_the_best_third(database):
    def objective(attempt):
        for step in range(1, 10):
            attempt.look(step, -attempt.number)  # each is worse than those before it
        return -attempt.number

    state = run(database, objective, num_trials=8, pruner="halving", num_steps=9, num_looks=9)
    assert state.count("pruned") >= 4
    assert all(max(one.course) < 9 for one in state.tried if one.state == "pruned")


def test_a_training_that_was_given_up_is_among_the_worst(database):
    def objective(attempt):
        if attempt.settings == DEFAULTS:
            attempt.give_up("it diverged")
        attempt.tell({"acc@10": 0.5})
        return worth(attempt.settings)

    state = run(database, objective, num_trials=3)
    given_up = state.tried[0]
    assert (given_up.state, given_up.value, given_up.note) == ("pruned", None, "it diverged")
    assert given_up not in state.ranked
    assert state.ranked[0].figures == {"acc@10": 0.5}


def test_repeats_are_made_once_over_all_workers(database):
    wanted = [Repeat(settings, seed) for settings in (DEFAULTS, WANG) for seed in (1, 2, 3)]
    done, lock = [], threading.Lock()

    def objective(attempt):
        time.sleep(0.02)
        with lock:
            done.append(Repeat(attempt.settings, attempt.seed))
        return 0.5, {"search": [attempt.seed, 0], "report": [2]}

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: repeat(database, "m8 (repeats)", Conditions(), objective, wanted), range(3)))
    assert sorted(done, key=repr) == sorted(wanted, key=repr)
    assert found[0] == found[1] == {one: {"search": [one.seed, 0], "report": [2]} for one in wanted}
    more = [*wanted, Repeat(WANG, 4)]
    repeat(database, "m8 (repeats)", Conditions(), objective, more)
    assert len(done) == 7
    assert set(read_repeats(database, "m8 (repeats)")) == set(more)
    assert read_repeats(database, "another") == {}


def test_an_unknown_study_lists_those_there_are(database):
    run(database, num_trials=1)
    repeat(database, "m8" + REPEATS, Conditions(), lambda _: (0.0, {}), [Repeat(WANG, 1)])
    with pytest.raises(InputError, match=r"there is no study 'm9' \(there are: m8\)"):
        read_study(database, "m9")


@pytest.mark.parametrize("damage", ["rubbish", "truncated", "other"])
def test_a_damaged_file_is_named(damage, database):
    path = Path(database.url.removeprefix("sqlite:///"))
    path.parent.mkdir()
    if damage == "truncated":
        run(database, num_trials=2)
        path.write_bytes(path.read_bytes()[:6000])
    elif damage == "other":
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE studies (name TEXT)")
    else:
        path.write_text("no database")
    with pytest.raises(InputError, match=r"ms-loss\.sqlite: the studies' database cannot be used \(.*remove the file"):
        run(database, num_trials=3)


def test_a_server_that_cannot_be_reached_is_named_without_its_password():
    url = "postgresql+psycopg://me:secret@127.0.0.1:1/studies"
    with pytest.raises(InputError, match=r"postgresql\+psycopg://me@127\.0\.0\.1:1/studies: the ") as told:
        run(Database.at(url))
    assert "secret" not in str(told.value)
    assert "pip install" in str(told.value) or "see that the server runs" in str(told.value)


@pytest.fixture
def server(tmp_path):
    """A PostgreSQL server of this test's own."""
    pytest.importorskip("psycopg", reason="PostgreSQL's driver psycopg is not installed")
    found = [shutil.which("initdb"), *sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    if not any(found):
        pytest.skip("there is no PostgreSQL server on this machine")
    programs = Path(next(one for one in found if one)).resolve().parent
    data = Path("/tmp") / f"harness-postgres-{os.getpid()}"
    data.mkdir()
    user = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root
    if user is not None:
        shutil.chown(data, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def call(program: str, *arguments: str) -> None:
        subprocess.run([programs / program, *arguments], check=True, user=user, stdout=subprocess.DEVNULL, cwd="/tmp")

    call("initdb", "-D", f"{data}/db", "-U", "me", "-A", "trust")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={data}"
    call("pg_ctl", "-D", f"{data}/db", "-w", "-l", f"{data}/log", "-o", options, "start")
    try:
        yield Database.at(f"postgresql+psycopg://me@127.0.0.1:{port}/postgres")
    finally:
        call("pg_ctl", "-D", f"{data}/db", "-m", "immediate", "stop")
        shutil.rmtree(data)


@pytest.mark.slow
def test_a_server_serves_as_a_file_does(server, tmp_path):
    kill_one_of_three(tmp_path, server, socket.gethostname())
    with ThreadPoolExecutor(4) as pool:
        states = list(pool.map(lambda _: run(server, num_trials=20), range(4)))
    assert all(len(finished(state)) == 20 for state in states)
    with pytest.raises(InputError, match="is of other conditions"):
        run(server, conditions=Conditions(data="others"))
