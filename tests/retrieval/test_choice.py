from pathlib import Path

import pytest

from harness.retrieval.choice import chosen_recipe
from harness.retrieval.recipes import find_recipe
from harness.types import InputError


def test_a_recipe_is_as_it_is():
    assert chosen_recipe("m4", "full") == (find_recipe("m4"), [])
    assert chosen_recipe("m4", "full", batch="32x4") == (find_recipe("m4"), [])


def test_the_learning_rate_goes_with_the_batch():
    recipe, notes = chosen_recipe("m4", "full", batch="256x4")  # SGD: eight times the crops
    assert (recipe.full.identities_per_batch, recipe.full.crops_per_identity) == (256, 4)
    assert recipe.full.learning_rate == pytest.approx(1.6)
    assert recipe.tiny == find_recipe("m4").tiny
    assert notes == ["--batch 256x4 instead of 32x4: the learning rate goes from 0.2 to 1.6"]
    recipe, notes = chosen_recipe("m4", "tiny", batch="48x4")  # AdamW: four times the crops
    assert recipe.tiny.learning_rate == pytest.approx(2 * find_recipe("m4").tiny.learning_rate)
    assert recipe.tiny.num_steps == 95  # as many crops in all


@pytest.mark.parametrize("batch", ["32", "32x", "x4", "0x4", "1x4", "32x1", "32×4", "-2x4"])
def test_a_batch_has_two_sides(batch):
    with pytest.raises(InputError, match=r"expected IDENTITIESxCROPS"):
        chosen_recipe("m4", "full", batch=batch)


def test_unknown_names_list_those_there_are(tmp_path: Path):
    with pytest.raises(InputError, match=r"unknown retrieval model 'm99'; there are m0, m1"):
        chosen_recipe("m99", "full")
    with pytest.raises(InputError, match=r"none\.toml"):
        chosen_recipe("m4", "full", recipes=tmp_path / "none.toml")
