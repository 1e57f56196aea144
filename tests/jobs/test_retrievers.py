"""A retriever is judged by ground-truth boxes on photos that are left for it, by the very protocol of the scores."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.commands import models
from harness.data.deepfashion2 import read_split
from harness.data.garments import garments_of
from harness.jobs.retrievers import GroundTruthAccuracy, train_retriever
from harness.retrieval.embedding import Retriever
from harness.retrieval.histogram import ColourHistogram
from harness.retrieval.recipes import find_recipe
from harness.training.pairs import held_out_pairs
from harness.types import InputError, Split
from harness.workplace import Workplace
from tests.commands import call, ok, refused


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "data"
    ok("data", "render", folder, "--train", 360, "--validation", 60, "--test", 2, "--workers", 1)
    return folder


@pytest.fixture(scope="module")
def validation(data) -> Split:
    return read_split(data, "validation")


def arguments(data: Path, work: Path, *more: object) -> tuple[object, ...]:
    given = ("--data", data, "--work", work, "--scale", "tiny", "--steps", 4, "--deepfashion2-only")
    return ("train", "retriever", "m0", *given, *more)


@pytest.fixture(scope="module")
def chosen_on_validation(data, tmp_path_factory) -> tuple[Path, str]:
    work = tmp_path_factory.mktemp("work")
    return work, ok(*arguments(data, work, "--evaluate-on", "validation", "--patience", 3, "--eval-every", 2))


def test_the_judge_says_what_score_says(data, validation, chosen_on_validation):
    work, told = chosen_on_validation
    card = Workplace(work).model_card("retriever", "m0")
    written = json.loads((card.folder / "card.json").read_text())
    assert f"best at step {written['best_step']} with an Acc@10 of {written['best_acc10']:.3f}" in told
    row = json.loads(ok("score", "m0 + GT", "--data", data, "--work", work, "--json"))
    accuracy = GroundTruthAccuracy(validation, validation.photos.image_ids)
    figures = accuracy(Retriever.load(card.folder))
    assert figures == {"acc@1": row["acc"]["1"], "acc@10": row["acc"]["10"]}
    assert written["best_acc10"] == figures["acc@10"] > 0
    row = json.loads(ok("score", "histogram + GT", "--data", data, "--work", work, "--json"))
    assert accuracy(ColourHistogram())["acc@10"] == row["acc"]["10"]


def test_a_row_on_the_photos_that_chose_a_retriever_is_marked(data, validation, chosen_on_validation):
    work, _ = chosen_on_validation
    card = Workplace(work).model_card("retriever", "m0")
    assert card.saw(validation.fingerprint) == "chosen on"
    row = json.loads(ok("score", "m0 + GT", "--data", data, "--work", work, "--json"))
    assert row["contamination"] == "chosen on validation: m0"


def test_a_row_is_marked_when_what_the_model_began_with_was_trained_or_chosen_on_the_photos(
    data, validation, chosen_on_validation, tmp_path
):
    parent = Workplace(chosen_on_validation[0]).model_folder("retriever", "m0")
    ok(*arguments(data, tmp_path, "--init-from", parent))
    card = Workplace(tmp_path).model_card("retriever", "m0")
    assert card.saw(validation.fingerprint) == "chosen on"
    seen = ("--split", "train", "--split", "validation")
    steps = ("--data", data, "--work", tmp_path, "--scale", "tiny", "--steps", 2)
    ok("train", "retriever", "m7", *steps, *seen, "--init-from", card.folder / "weights.pt")
    m7 = Workplace(tmp_path).model_folder("retriever", "m7")
    ok("train", "retriever", "m11", *steps, "--deepfashion2-only", "--init-from", m7)
    grandchild = Workplace(tmp_path).model_card("retriever", "m11")
    assert grandchild.saw(validation.fingerprint) == "trained on"
    assert "begun with a model of 360 RENDERED photos of train, 60 RENDERED photos of validation" in grandchild.summary
    row = json.loads(ok("score", "m11 + GT", "--data", data, "--work", tmp_path, "--json"))
    assert row["contamination"] == "trained on validation: m11"


def test_held_out_pairs_judge(data, tmp_path):
    assert "best at step" in ok(*arguments(data, tmp_path, "--hold-out", "--patience", 1))
    card, train = Workplace(tmp_path).model_card("retriever", "m0"), read_split(data, "train")
    rest, held = held_out_pairs(train)
    assert card.chosen_on[0]["num_photos"] == len(held)
    assert card.trained_on[0]["num_photos"] == len(rest)
    assert not card.saw_any(train.fingerprint, held, train.photos.image_ids)


def test_parts_that_know_the_held_out_pairs_are_refused(data, tmp_path):
    train = read_split(data, "train")
    everything = [garments_of(train, train.photos.image_ids)]
    with pytest.raises(ValueError, match="are to be held out"):
        train_retriever("m0", find_recipe("m0"), "tiny", everything, tmp_path, split=train, hold_out=True, seed=0)
    with pytest.raises(ValueError, match="expected the split"):
        train_retriever("m0", find_recipe("m0"), "tiny", everything, tmp_path, hold_out=True, seed=0)


def test_without_photos_to_judge_on_there_is_no_patience(data, tmp_path):
    for option in ("--patience", "--eval-every"):
        assert "add --hold-out, or --evaluate-on validation" in refused(*arguments(data, tmp_path, option, 2))
    message = refused(*arguments(data, tmp_path, "--hold-out", "--patience", 2, "--eval-every", 0))
    assert "a patience needs looks" in message
    assert not (tmp_path / "models").exists()


def test_a_retriever_that_nobody_asked_to_judge_is_not_judged_at_tiny_scale(data, tmp_path):
    ok(*arguments(data, tmp_path, "--hold-out"))
    logs = (tmp_path / "models" / "retrievers" / "m0" / "logs").rglob("metrics.csv")
    assert not any("val/acc" in log.read_text() for log in logs)


def test_too_few_gallery_garments_are_refused(validation):
    shop = validation.photos.image_ids[~validation.photos.is_consumer]
    few = np.concatenate([validation.photos.image_ids[validation.photos.is_consumer], shop[:5]])
    with pytest.raises(InputError, match=r"shop garments, at least 20 .*--evaluate-on validation"):
        GroundTruthAccuracy(validation, few)
    with pytest.raises(InputError, match="has no annotations"):
        GroundTruthAccuracy(replace(validation, items=None), few)


def test_a_consumer_garment_without_a_match_asks_nothing(validation):
    items = validation.items
    asked = np.flatnonzero(items.is_consumer & (items.styles > 0))
    styles = items.styles.copy()
    styles[asked[0]] = 97  # no shop has it
    altered = replace(validation, items=replace(items, styles=styles))
    before = GroundTruthAccuracy(validation, validation.photos.image_ids).score(ColourHistogram())
    after = GroundTruthAccuracy(altered, validation.photos.image_ids).score(ColourHistogram())
    assert after.num_queries == before.num_queries - 1
    assert after.hit_ranks.tolist() == np.delete(before.hit_ranks, 0).tolist()


def test_further_sources_and_a_recipe_of_ones_own(data, tmp_path):
    photos = sorted((data / "train" / "image").glob("*.jpg"))[:8]
    (tmp_path / "mine.csv").write_text(
        "image,box,item,domain\n" + "".join(f"{photo},,item {n // 2},shop\n" for n, photo in enumerate(photos))
    )
    (tmp_path / "mine.toml").write_text(
        'sources = ["Mine"]\n[models.m18]\nbase = "m0"\nplus = ["Mine"]\ndescription = "and ours"\n'
    )
    given = ("--data", data, "--work", tmp_path, "--scale", "tiny", "--steps", 2, "--recipes", tmp_path / "mine.toml")
    ok("train", "retriever", "m18", *given, "--source", f"Mine={tmp_path / 'mine.csv'}", "--batch", "8x2")
    card = json.loads((Workplace(tmp_path).model_folder("retriever", "m18") / "card.json").read_text())
    assert [part["split"] for part in card["trained_on"]] == ["train", "Mine"]
    assert card["recipe"]["identities_per_batch"] == 8
    assert "also trains on Mine" in refused("train", "retriever", "m18", *given, "--force")


def test_whoever_waits_much_for_photos_is_told(data, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "MUCH_WAITING", 0.0)
    told = call(*arguments(data, tmp_path, "--workers", 0))
    card = json.loads((Workplace(tmp_path).model_folder("retriever", "m0") / "card.json").read_text())
    assert 0 < card["data_wait_share"] < 1  # every step decodes its photos
    share = f"{card['data_wait_share']:.0%}"
    assert f"waited {share} of the time for photos: more --workers, or faster disks" in told.output


@pytest.mark.slow
def test_two_processes_that_share_the_photos_judge_as_one(data, validation, tmp_path):
    more = ("--evaluate-on", "validation", "--patience", 3, "--eval-every", 2, "--devices", 2, "--seed", 4)
    command = [sys.executable, "run.py", *map(str, arguments(data, tmp_path, *more))]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folder = Workplace(tmp_path).model_folder("retriever", "m0")
    written = json.loads((folder / "card.json").read_text())
    assert written["num_processes"] == 2
    figures = GroundTruthAccuracy(validation, validation.photos.image_ids)(Retriever.load(folder))
    assert written["best_acc10"] == figures["acc@10"]
