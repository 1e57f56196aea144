"""A retrieval model trained on further sources: what is read, left out, told and kept, by the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from harness.data.deepfashion2 import read_split
from harness.data.garments import garments_of
from harness.data.rendered import RenderSettings, render
from harness.workplace import Workplace
from tests.commands import call, ok, refused


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources") / "data"
    render(folder, RenderSettings(num_train=60, num_validation=20, num_test=2), workers=1)
    return folder


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    path = tmp_path / "recipes.toml"
    path.write_text(
        'sources = ["Mine"]\n[models.m18]\nbase = "m0"\nplus = ["Mine"]\ndescription = "our photos"\n'
        "tiny = { num_steps = 2, identities_per_batch = 4, input_wh = [32, 32], output_dim = 16 }\n"
    )
    return path


def manifest(folder: Path, data: Path, split: str, count: int) -> Path:
    """A team's list: garments of a split under names of their own, which makes every one a copy."""
    photos = read_split(data, split)
    garments = garments_of(photos, photos.photos.image_ids)
    rows = np.flatnonzero(garments.identities >= 0)[:count]
    lines = ["image,box,item,domain"]
    for row in rows.tolist():
        box = " ".join(f"{side:g}" for side in garments.boxes_xyxy[row])
        domain = "consumer" if garments.is_consumer[row] else "shop"
        lines.append(f"{garments.photos[garments.photo_rows[row]]},{box},item {garments.identities[row]},{domain}")
    path = folder / f"{split}.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def train(data: Path, work: Path, recipes: Path, *more: object) -> tuple[str, str]:
    """What the command says on both outputs, and what is in the card."""
    arguments = ("train", "retriever", "m18", "--data", data, "--work", work, "--recipes", recipes, "--scale", "tiny")
    result = call(*arguments, *more)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output, json.loads((work / "models/retrievers/m18/card.json").read_text())


@pytest.mark.slow
def test_copies_of_an_earlier_source_are_left_out_and_the_card_knows(data, tmp_path, recipes):
    mine = manifest(tmp_path, data, "train", 10)
    told, card = train(data, tmp_path / "work", recipes, "--source", f"Mine={mine}")
    assert "Mine: 10 crops of 10 left out as copies: 10 of an earlier source" in told
    assert [one["split"] for one in card["trained_on"]] == ["train", "Mine"]
    alone = train(data, tmp_path / "alone", recipes, "--deepfashion2-only")[1]
    assert card["num_crops"] == alone["num_crops"]
    assert len(card["garments_sha256"]) == 64
    with_copies = train(data, tmp_path / "all", recipes, "--source", f"Mine={mine}", "--no-deduplicate")[1]
    assert with_copies["num_crops"] > alone["num_crops"]
    assert with_copies["garments_sha256"] is None
    again = ("train", "retriever", "m18", "--data", data, "--work", tmp_path / "work", "--recipes", recipes)
    message = refused(*again, "--scale", "tiny", "--source", f"Mine={mine}", "--no-deduplicate")
    assert "garments_sha256" in message


@pytest.mark.slow
def test_copies_of_validation_are_told_and_left_out_on_demand(data, tmp_path, recipes):
    mine = manifest(tmp_path, data, "validation", 6)
    told, card = train(data, tmp_path / "kept", recipes, "--source", f"Mine={mine}")
    assert "Mine: 6 crops are copies of validation crops and are trained on all the same, such as" in told
    validation = read_split(data, "validation")
    known = Workplace(tmp_path / "kept").model_card("retriever", "m18").saw(validation.fingerprint)
    assert known == "trained on copies of"
    told, without = train(data, tmp_path / "gone", recipes, "--source", f"Mine={mine}", "--leave-out-validation")
    assert "Mine: 6 crops of 6 left out as copies: 6 of validation" in told
    assert without["num_crops"] < card["num_crops"]
    assert Workplace(tmp_path / "gone").model_card("retriever", "m18").saw(validation.fingerprint) is None


def test_a_source_must_be_written_as_name_and_path(data, tmp_path, recipes):
    arguments = ("train", "retriever", "m18", "--data", data, "--work", tmp_path, "--recipes", recipes)
    assert call(*arguments, "--source", "Mine").exit_code == 2
    assert "no such file" in refused(*arguments, "--source", f"Mine={tmp_path}/nothing.csv")
    assert ok("models", "m18", "--recipes", recipes)


def test_what_does_not_fit_is_refused_before_anything_is_looked_at(data, tmp_path, recipes):
    mine = manifest(tmp_path, data, "train", 4)
    work = ("--data", data, "--work", tmp_path / "work", "--recipes", recipes)
    arguments = ("train", "retriever", "m18", *work, "--scale", "tiny")
    assert "Mine, which was not given" in refused(*arguments)
    assert "not among what recipe m0" in refused("train", "retriever", "m0", *work, "--source", f"Mine={mine}")
    assert "Mine, which was not given" in refused("ablate", "m0", "m18", *work, "--scale", "tiny")
    message = refused(*arguments, "--source", f"Mine={mine}", "--batch", "800x4")
    assert "--batch 800x4: there are" in message
    leave_out = call(*arguments, "--source", f"Mine={mine}", "--no-deduplicate", "--leave-out-validation")
    assert (leave_out.exit_code, "needs --deduplicate" in leave_out.output) == (2, True)
    assert not list((tmp_path / "work").rglob("*.npz")), "no photo was looked at"
    assert not list((tmp_path / "work").rglob("plan.json"))
