"""What `tune ms-loss` finds is searched on one half of the held-out pairs, told of the other, and used."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.jobs import ms_loss_bench
from harness.jobs.ms_loss_bench import Bench, Request, keep_logs_alone
from harness.jobs.ms_loss_lab import first_trials, tidy, wanted_repeats
from harness.jobs.ms_loss_report import summary_of
from harness.jobs.tuned_losses import tuned_recipe
from harness.retrieval.recipes import find_recipe
from harness.retrieval.settings import MultiSimilaritySettings
from harness.retrieval.tuning.searching import repeat, tune
from harness.retrieval.tuning.values import DEFAULTS, WANG, WIDE, StudyState, Tried
from harness.types import InputError
from harness.workplace import Workplace
from tests.commands import call, ok, refused

FOUND = MultiSimilaritySettings(alpha=3.0, beta=20.0, base=0.4, epsilon=0.2, weight=1.5)


def entry(**changes):
    told = {"settings": FOUND.model_dump(), "study": "s", "trial": 7, "rendered": False, "better": True}
    return told | changes


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "data"
    ok("data", "render", folder, "--train", 700, "--validation", 20, "--test", 2, "--workers", 2)
    return folder


@pytest.fixture(scope="module")
def searched(data, tmp_path_factory) -> tuple[Path, str]:
    """A working folder after a search, and what the command said."""
    work = tmp_path_factory.mktemp("work")
    return work, ok(*command(data, work), "--trials", 2)


def command(data: Path, work: Path) -> tuple[object, ...]:
    return ("tune", "ms-loss", "--data", data, "--work", work, "--scale", "tiny", "--steps", 2, "--looks", 2,
            "--best", 1, "--repeats", 2)  # fmt: skip


@pytest.mark.slow
def test_a_search_tells_and_keeps_its_winner(searched):
    work, told = searched
    assert "RENDERED photos" in told
    assert "trials: 2 complete" in told
    assert re.search(r"Acc@10 [+-]\.?\d.*95 % interval .* p ", told)
    kept = Workplace(work).every_ms_loss()["m8/tiny"]
    assert kept["settings"] == WANG.model_dump()
    assert (kept["study"], kept["rendered"], kept["seeds"]) == ("m8-tiny", True, [1, 2])
    assert kept["better"] == (kept["comparison"]["mean"]["difference"] > 0)
    assert ("NOT better than the defaults" in told) == (not kept["better"])
    report = kept["candidates"][0]["report"]["acc@10"], kept["defaults"]["report"]["acc@10"]
    assert kept["comparison"]["acc@10"]["difference"] == pytest.approx(report[0][0] - report[1][0])
    folder = work / "studies" / "m8-tiny"
    rows = list(csv.DictReader((folder / "trials.csv").open()))
    assert [row["given as"] for row in rows] == ["defaults", "Wang et al.", "recipe"]
    assert [row["state"] for row in rows] == ["complete", "complete", "waiting"]
    assert [row["looks"] for row in rows] == ["2", "2", "0"]
    for name in ("history.png", "slices.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "summary.json").read_text())["num_trials"]["complete"] == 2


@pytest.mark.slow
def test_only_the_best_trial_keeps_its_weights_and_all_keep_their_logs(searched):
    work, _ = searched
    best = Workplace(work).every_ms_loss()["m8/tiny"]
    told = json.loads(ok("tune", "ms-loss", "--work", work, "--scale", "tiny", "--report", "--json"))
    folder = work / "studies" / "m8-tiny"
    with_weights = [path.parent.name for path in folder.rglob("weights.pt")]
    assert with_weights == [f"trial_{told['best']['trial']:04d}"]
    for trial in ("trial_0000", "trial_0001"):
        assert "val/mean" in next((folder / trial).rglob("metrics.csv")).read_text()
    assert [(one / "logs").is_dir() for one in (folder / "repeats").iterdir()] == [True] * 4
    assert best["num_trials"] == told["num_trials"]


@pytest.mark.slow
def test_the_same_command_goes_on_and_other_conditions_are_refused(searched, data):
    work, _ = searched
    told = json.loads(ok(*command(data, work), "--trials", 2, "--json"))
    assert told["kept_as"] == "m8/tiny"
    assert told["num_trials"]["complete"] == 2
    message = refused(*command(data, work), "--trials", 2, "--seed", 5)
    assert "study 'm8-tiny' is of other conditions (seed: 0 there, 5 wanted)" in message
    message = refused(*command(data, work), "--trials", 2, "--space", "narrow")
    assert "space" in message


@pytest.mark.slow
def test_training_takes_what_was_found_and_the_card_says_so(searched, data, tmp_path):
    work, _ = searched
    base = ("train", "retriever", "m8", "--data", data, "--work", work, "--scale", "tiny", "--steps", 1)
    result = call(*base)
    assert result.exit_code == 0, result.output
    assert "from study m8-tiny, trial" in result.stderr
    card = json.loads((work / "models" / "retrievers" / "m8" / "card.json").read_text())
    assert card["recipe"]["losses"]["multi_similarity"] == WANG.model_dump()
    assert re.fullmatch(r"study m8-tiny, trial 1 \(m8/tiny, RENDERED\)", card["ms_loss_from"])
    assert "multi_similarity" in refused(*base, "--ms-loss", "recipe")  # another training than the folder holds
    ok(*base, "--ms-loss", "recipe", "--force")
    card = json.loads((work / "models" / "retrievers" / "m8" / "card.json").read_text())
    assert card["ms_loss_from"] == "models.toml"
    assert card["recipe"]["losses"]["multi_similarity"]["alpha"] == 8.49


def test_what_was_found_can_be_forgotten(tmp_path):
    work = Workplace(tmp_path)
    work.keep_ms_loss("m8/tiny", entry())
    work.keep_ms_loss("m9/full", entry(trial=9))
    command = ("tune", "ms-loss", "m8", "--work", tmp_path, "--scale", "tiny", "--defaults")
    assert "forgot what was kept" in ok(*command)
    assert list(work.every_ms_loss()) == ["m9/full"]
    assert "nothing was kept" in ok(*command)


def test_a_recipe_that_wants_no_search_stays_as_it_is(tmp_path):
    Workplace(tmp_path).keep_ms_loss("m0/tiny", entry())
    tuned = tuned_recipe(find_recipe("m0"), "tiny", Workplace(tmp_path), rendered=False)
    assert (tuned.recipe, tuned.origin, tuned.notes) == (find_recipe("m0"), None, ())


@pytest.mark.parametrize("as_in_file", [False, True])
def test_without_a_find_the_recipe_files_values_are_taken(as_in_file, tmp_path):
    work = Workplace(tmp_path)
    if as_in_file:
        work.keep_ms_loss("m8/tiny", entry())
    tuned = tuned_recipe(find_recipe("m8"), "tiny", work, rendered=False, as_in_file=as_in_file)
    assert (tuned.recipe, tuned.origin) == (find_recipe("m8"), "models.toml")
    assert ("tune ms-loss" in tuned.notes[0]) == (not as_in_file)


def test_the_scale_goes_before_the_model_and_the_model_before_the_latest(tmp_path):
    work = Workplace(tmp_path)
    m14 = find_recipe("m14")

    def origin(scale):
        return tuned_recipe(m14, scale, work, rendered=False).origin

    work.keep_ms_loss("m8/tiny", entry(trial=1))
    assert origin("full") == "study s, trial 1 (m8/tiny)"
    work.keep_ms_loss("m8/full", entry(trial=2))
    work.keep_ms_loss("m9/full", entry(trial=3))
    assert origin("full") == "study s, trial 3 (m9/full)"
    assert origin("tiny") == "study s, trial 1 (m8/tiny)"
    work.keep_ms_loss("m14/full", entry(trial=4))
    work.keep_ms_loss("m8/full", entry(trial=5))
    assert origin("full") == "study s, trial 4 (m14/full)"


def test_a_find_of_another_scale_or_of_rendered_photos_is_said_loudly(tmp_path):
    work = Workplace(tmp_path)
    work.keep_ms_loss("m8/tiny", entry(rendered=True, better=False))
    tuned = tuned_recipe(find_recipe("m8"), "full", work, rendered=False)
    assert tuned.recipe.full.losses.multi_similarity == FOUND
    assert tuned.recipe.tiny == find_recipe("m8").tiny
    assert tuned.recipe.full.losses.triplet == find_recipe("m8").full.losses.triplet
    loud = [note for note in tuned.notes if note.startswith("WARNING")]
    assert len(loud) == 3
    assert "scale tiny" in loud[0]
    assert "RENDERED" in loud[1]
    assert "not better than the defaults" in loud[2]
    quiet = tuned_recipe(find_recipe("m8"), "tiny", work, rendered=True).notes
    assert [note for note in quiet if "WARNING" in note] == loud[2:]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"m8/tiny": 3}', '{"m8/tiny": {}}', '{"m8/tiny": {"settings": {"alpha": -1}}}']
)
def test_a_damaged_file_of_finds_is_named(text, tmp_path):
    work = Workplace(tmp_path)
    work.ms_loss.write_text(text)
    with pytest.raises(InputError, match=r"ms_loss\.json: is damaged \(.*remove it, then search again"):
        tuned_recipe(find_recipe("m8"), "tiny", work, rendered=True)


def test_a_damaged_file_of_finds_is_named_before_the_search(tmp_path):
    Workplace(tmp_path).ms_loss.write_text("{")
    message = refused("tune", "ms-loss", "--data", tmp_path / "nowhere", "--work", tmp_path, "--scale", "tiny")
    assert "ms_loss.json: is damaged" in message


def test_wrong_usage(tmp_path):
    assert call("tune", "ms-loss", "--work", tmp_path).exit_code == 2
    assert call("tune", "ms-loss", "--work", tmp_path, "--report", "--repeats", 1).exit_code == 2
    assert "there are m0" in refused("tune", "ms-loss", "m99", "--work", tmp_path, "--report")
    assert "there is no study 'm8-full'" in refused("tune", "ms-loss", "--work", tmp_path, "--report")
    assert "study '../x'" in refused("tune", "ms-loss", "--work", tmp_path, "--report", "--study", "../x")


@pytest.mark.slow
def test_a_full_scale_search_needs_its_steps(data, tmp_path):
    message = refused("tune", "ms-loss", "--data", data, "--work", tmp_path)
    assert "trains for 200 epochs" in message
    assert "--steps N" in message


def request(tmp_path, **changes) -> Request:
    return Request(**{"work": Workplace(tmp_path), "data": tmp_path, "recipe": find_recipe("m8"), "scale": "tiny",
                      "study": "s"} | changes)  # fmt: skip


def tried(number, settings, value, state="complete", retry_of=None) -> Tried:
    return Tried(number, state, settings, value, {}, None, None, None, {}, retry_of)


def test_the_best_and_the_defaults_are_repeated_with_the_same_new_seeds(tmp_path):
    other = FOUND.model_copy(update={"alpha": 9.0})
    trials = [tried(0, DEFAULTS, 0.9), tried(1, WANG, 0.5), tried(2, FOUND, 0.7), tried(3, other, 0.99, "pruned"),
              tried(4, FOUND, 0.6)]  # fmt: skip
    state = StudyState("s", {}, trials)
    wanted = wanted_repeats(request(tmp_path, num_best=2, num_repeats=2, seed=5), state)
    assert list(wanted) == [FOUND, WANG, DEFAULTS]
    assert [[one.seed for one in some] for some in wanted.values()] == [[6, 7]] * 3
    with pytest.raises(InputError, match="only the defaults ran to their end"):
        wanted_repeats(request(tmp_path), StudyState("s", {}, trials[:1]))


def test_the_recipes_own_values_are_tried_where_they_are_others():
    assert list(first_trials(FOUND)) == ["defaults", "Wang et al.", "recipe"]
    assert list(first_trials(DEFAULTS)) == ["defaults", "Wang et al."]


def test_tidying_spares_the_best_and_what_still_runs(tmp_path):
    for number in range(4):
        (tmp_path / f"trial_{number:04d}" / "logs").mkdir(parents=True)
        (tmp_path / f"trial_{number:04d}" / "weights.pt").touch()
    trials = [tried(0, WANG, 0.2), tried(1, FOUND, None, "fail"), tried(2, DEFAULTS, 0.1),
              tried(3, DEFAULTS, None, "running"), tried(4, FOUND, 0.9, retry_of=1)]  # fmt: skip
    tidy(tmp_path, StudyState("s", {}, trials))
    assert sorted(path.parent.name for path in tmp_path.rglob("weights.pt")) == ["trial_0001", "trial_0003"]
    assert len(list(tmp_path.rglob("logs"))) == 4


@pytest.mark.parametrize(
    ("first", "every", "last", "steps"), [(0, 4, 10, [4, 8, 10]), (4, 4, 8, [8]), (5, 4, 8, [8]), (8, 4, 8, [])]
)
def test_the_steps_at_which_a_training_that_goes_on_is_looked_at(first, every, last, steps):
    assert list(ms_loss_bench._looks(first, every, last)) == steps


def test_where_a_training_goes_on(tmp_path):
    assert ms_loss_bench._step_reached(tmp_path) == 0
    torch.save({"global_step": 120, "state_dict": {}}, tmp_path / "last.ckpt")
    assert ms_loss_bench._step_reached(tmp_path) == 120
    keep_logs_alone(tmp_path)
    assert ms_loss_bench._step_reached(tmp_path) == 0


class Diverged:
    name, dimensions, input_wh, margin = "m8", 4, (8, 8), 0.0

    def embed(self, crops):
        return np.full((len(crops), 4), np.nan, np.float32)


def test_a_model_that_diverged_is_no_error_of_the_user():
    with pytest.raises(ms_loss_bench._DivergedError, match="no longer of length 1"):
        ms_loss_bench._Watched(Diverged()).embed(np.zeros((2, 8, 8, 3), np.uint8))


def conditions_of(**changes):
    return ms_loss_bench.Conditions(**{
        "model": "m8", "scale": "tiny", "rendered": False, "data": "", "trained_on": "", "searched_on": "",
        "reported_on": "", "recipe": {}, "num_steps": 8, "looks": 2, "space": WIDE.model_dump(mode="json"),
        "objective": ms_loss_bench.OBJECTIVE, "seed": 0,
    } | changes)  # fmt: skip


def test_enough_trials_are_drawn_by_importance_too(tmp_path):
    database = ms_loss_bench.database_of(Workplace(tmp_path), None)
    pruned = []

    def objective(attempt):
        if attempt.number == 9:
            pruned.append(attempt.number)
            attempt.give_up("it diverged")
        return -abs(np.log(attempt.settings.alpha))

    tune(database, "s", conditions_of(rendered=True), objective, num_trials=14, seed=0, pruner="none")
    told = summary_of(Workplace(tmp_path), "s")
    assert max(told["importance"], key=told["importance"].get) == "alpha"
    assert [Path(one).name for one in told["files"]] == [
        "trials.csv", "summary.json", "history.png", "slices.png", "importance.png",
    ]  # fmt: skip
    assert all(Path(one).stat().st_size > 0 for one in told["files"])
    assert pruned == [9]
    assert "it diverged" in (tmp_path / "studies" / "s" / "trials.csv").read_text()
    assert told["repeats"] is None
    assert "no repeats yet" in ok("tune", "ms-loss", "--work", tmp_path, "--study", "s", "--report")


def reported(tmp_path, first, second):
    """The summary of a study of which the repeats found these ranks: of the defaults and of another candidate."""
    conditions = conditions_of()
    work = Workplace(tmp_path)
    database = ms_loss_bench.database_of(work, None)
    state = tune(database, "s", conditions, lambda _: 0.5, num_trials=2, seed=0, first=first_trials(DEFAULTS))
    wanted = wanted_repeats(request(tmp_path, num_best=1, num_repeats=2), state)

    def objective(attempt):
        ranks = (first if attempt.settings == DEFAULTS else second)[attempt.seed - 1]
        return 0.5, {"search": ranks, "report": ranks}

    repeat(database, "s (repeats)", conditions, objective, [one for some in wanted.values() for one in some])
    return work, summary_of(work, "s")


def test_the_report_by_hand(tmp_path):
    # Acc@10 of the defaults: 1/4 and 2/4; of the other: 3/4 twice. Objective: a rank of 1 counts 1, of 7 counts 3/5.
    _, told = reported(tmp_path, [[1, 0, 0, 0], [1, 0, 0, 7]], [[1, 1, 0, 7], [1, 1, 7, 0]])
    repeats = told["repeats"]
    assert repeats["num_queries"] == {"search": 4, "report": 4}
    assert repeats["defaults"]["report"]["acc@10"][0] == pytest.approx(0.375)
    assert repeats["candidates"][0]["report"]["acc@10"][0] == pytest.approx(0.75)
    assert repeats["candidates"][0]["report"]["mean"][0] == pytest.approx(2.6 / 4)
    assert repeats["defaults"]["report"]["mean"][0] == pytest.approx((0.25 + 0.4) / 2)
    assert repeats["comparison"]["acc@10"]["difference"] == pytest.approx(0.375)
    assert repeats["better"] is True
    assert repeats["candidates"][0]["trial"] == 1
    assert told["rendered"] is False


def test_a_winner_that_is_worse_is_kept_and_said_to_be(tmp_path):
    work, told = reported(tmp_path, [[1, 1], [1, 1]], [[0, 1], [1, 0]])
    assert told["repeats"]["better"] is False
    shown = ok("tune", "ms-loss", "--work", tmp_path, "--study", "s", "--report")
    assert "NOT better than the defaults where the search did not look" in shown
    assert work.every_ms_loss() == {}  # a report keeps nothing


@pytest.mark.slow
def test_a_training_that_was_done_but_not_told_is_judged_from_its_weights(data, tmp_path):
    bench = Bench(request(tmp_path, data=data, num_steps=2, num_looks=1))
    told = []

    class Attempt:
        settings, number, seed = WANG, 3, None

        def look(self, step, value):
            told.append((step, value))

        def tell(self, figures):
            pass

    value = bench.attempt(Attempt())
    assert told == [(2, value)]
    assert bench.attempt(Attempt()) == value
    assert len(told) == 1
