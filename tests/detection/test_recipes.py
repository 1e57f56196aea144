from __future__ import annotations

import pytest
from pydantic import ValidationError

from harness.detection.module import learning_rate_factor
from harness.detection.recipes import load_recipes, parse_recipes, recipe_named
from harness.types import InputError


def test_the_five_in_the_order_of_table_5():
    names = ["ATSS", "CascadeMaskRCNN", "CenterNet", "RetinaNet-R101-FPN", "RetinaNet-X101-FPN"]
    assert list(load_recipes()) == names


def test_published_figures_are_those_of_table_2():
    rows = {
        name: [round(100 * value, 1) for value in recipe.published.model_dump().values()]
        for name, recipe in load_recipes().items()
    }
    assert rows == {
        "ATSS": [72.8, 83.6, 80.6, 52.7, 53.2, 73.0],
        "CascadeMaskRCNN": [72.7, 83.9, 80.4, 42.6, 52.0, 68.4],
        "CenterNet": [70.4, 81.4, 77.9, 30.1, 44.3, 70.8],
        "RetinaNet-R101-FPN": [67.4, 81.1, 76.2, 32.7, 46.1, 67.6],
        "RetinaNet-X101-FPN": [67.4, 81.2, 76.1, 32.7, 51.9, 67.6],
    }


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"'YOLO'.*ATSS, CascadeMaskRCNN"):
        recipe_named("YOLO")


def test_an_unknown_scale_lists_the_known_ones():
    with pytest.raises(InputError, match="'full' and 'tiny'"):
        load_recipes()["ATSS"].at("huge")


def test_recipes_are_frozen():
    with pytest.raises(ValidationError):
        load_recipes()["ATSS"].tiny.batch_size = 3


RECIPE = """
[detectors.Mine.full]
config = "atss/atss_r50_fpn_1x_coco.py"
input_px = [640, 480]
batch_size = 2
num_epochs = 1
schedule = "cosine"
optimiser = { kind = "sgd", learning_rate = 0.1, weight_decay = 0 }
score_threshold = 0.1
max_per_image = 5
detect_batch_size = 2
precision = "32-true"
num_workers = 0
keep_photos_in_memory = false
"""


def with_tiny(text: str) -> str:
    return text + text.replace("Mine.full", "Mine.tiny")


def test_a_users_file_adds_a_detector(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(with_tiny(RECIPE))
    recipes = load_recipes(path)
    assert list(recipes)[-1] == "Mine"
    assert recipes["Mine"].full.steps(11) == 6  # 11 photos, two a step, once: rounded to even


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("batch_size = 2", "batch_sise = 2", r"mine\.toml: detectors\.Mine\.\w+\.batch_si[sz]e"),
        ("num_epochs = 1", "num_epochs = 1\nnum_steps = 3", "either num_steps or num_epochs"),
        ("input_px = [640, 480]", "input_px = [480, 640]", "longest, shortest"),
        ('schedule = "cosine"', 'schedule = "zigzag"', "schedule"),
        ("batch_size = 2", "batch_size = ", "not valid TOML"),
        ("[detectors.Mine.full]", "[detector.Mine.full]", "unknown table 'detector'"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said(before, after, message):
    with pytest.raises(InputError, match=message):
        parse_recipes(with_tiny(RECIPE).replace(before, after), "mine.toml")


def test_a_missing_recipe_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.toml"):
        load_recipes(tmp_path / "nothing.toml")


def test_cosine_warms_up_and_ends_at_zero():
    scale = load_recipes()["ATSS"].tiny
    factors = [learning_rate_factor(scale, step, 100) for step in range(101)]
    assert factors[:6] == pytest.approx([1 / 7, 2 / 7, 3 / 7, 4 / 7, 5 / 7, 6 / 7])
    assert factors[6] == 1
    assert factors[100] == pytest.approx(0)


def test_the_step_schedule_falls_at_epochs_8_and_11_of_12():
    scale = load_recipes()["ATSS"].full
    factors = {epoch: learning_rate_factor(scale, epoch * 10_000 + 100, 120_000) for epoch in (7, 8, 10, 11)}
    assert factors == pytest.approx({7: 1, 8: 0.1, 10: 0.1, 11: 0.01})
