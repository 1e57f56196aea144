"""Recipes against one another over seeds."""

import json
from pathlib import Path

import numpy as np
import pytest

from harness.data.deepfashion2 import read_split
from harness.data.garments import garments_of
from harness.data.rendered import RenderSettings, render
from harness.jobs.ablation import ablate
from harness.jobs.retrievers import GroundTruthAccuracy
from harness.progress import silent
from harness.retrieval.embedding import Retriever
from harness.retrieval.recipes import RetrieverRecipe, find_recipe
from harness.types import InputError
from harness.workplace import Workplace
from tests.commands import call


def small(name: str, **more: object) -> RetrieverRecipe:
    """A recipe with a network that takes milliseconds a step."""
    recipe = find_recipe(name)
    settings = {
        "backbone_options": {"channels": [8, 8, 16, 16], "stem_width": 8},
        "input_wh": (32, 32),
        "output_dim": 16,
        "identities_per_batch": 4,
        "crops_per_identity": 2,
        "num_steps": 3,
    }
    return recipe.model_copy(update={"tiny": recipe.tiny.model_copy(update=settings)})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation") / "data"
    render(folder, RenderSettings(num_train=40, num_validation=40, num_test=2), workers=1)
    return folder


@pytest.mark.slow
def test_recipes_are_compared_on_the_same_queries_and_nothing_is_trained_twice(data, tmp_path):
    train, validation = read_split(data, "train"), read_split(data, "validation")
    parts = [garments_of(train, train.photos.image_ids)]
    work = Workplace(tmp_path)

    def call():
        recipes = [small("m0"), small("m17")]
        return ablate(recipes, "tiny", parts, validation, work, [5, 6], deepfashion2_only=True, report=silent)

    first, second = call()
    assert (first.name, second.name) == ("m0", "m17")
    assert first.against_first == {}
    assert first.sources == ("DeepFashion2/train",)
    assert len(first.acc[10]) == 2
    accuracy = GroundTruthAccuracy(validation, validation.photos.image_ids)
    folder = tmp_path / "ablations"
    scores = [
        [accuracy(Retriever.load(folder / name / f"seed-{seed}"))["acc@10"] for seed in (5, 6)]
        for name in ("m0", "m17")
    ]
    assert [list(first.acc[10]), list(second.acc[10])] == scores
    assert second.against_first[10].difference.mean == pytest.approx(np.mean(scores[1]) - np.mean(scores[0]))
    cards = sorted(tmp_path.glob("ablations/*/*/card.json"))
    assert [json.loads(card.read_text())["seed"] for card in cards] == [5, 6, 5, 6]
    before = [card.stat().st_mtime_ns for card in cards]
    assert [one.acc for one in call()] == [first.acc, second.acc]
    assert [card.stat().st_mtime_ns for card in cards] == before


def test_a_name_or_a_seed_twice_is_refused(data, tmp_path):
    validation = read_split(data, "validation")
    for recipes, seeds, message in (
        ([small("m0"), small("m0")], [1], "recipes: expected at least one, each once, got m0, m0"),
        ([small("m0")], [1, 1], "seeds: .* got 1, 1"),
        ([small("m0")], [], "seeds: .* got none"),
    ):
        with pytest.raises(InputError, match=message):
            ablate(recipes, "tiny", [], validation, Workplace(tmp_path), seeds, report=silent)


@pytest.mark.parametrize("seeds", ["", "1,,2", "-1", "1.5", "²"])
def test_seeds_are_whole_numbers(seeds, data, tmp_path):
    result = call("ablate", "m0", "--data", data, "--work", tmp_path, "--seeds", seeds)
    assert result.exit_code == 2
    assert "Invalid value for --seeds" in result.output
