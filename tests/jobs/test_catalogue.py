"""The list of recipes, one recipe in full, what is trained, and what networks cost."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.jobs.catalogue import in_full, read_catalogue
from harness.retrieval import costs
from harness.retrieval.backbones import make_encoder_backbone
from harness.retrieval.costs import costs_of, count
from harness.retrieval.recipes import load_recipes, resolve
from tests.commands import ok, refused

OURS = '[models.m18]\nbase = "m4"\nbackbone = "convnext_atto"\ndescription = "ours"\n'


def test_multiply_adds_of_layers_worked_out_by_hand():
    with torch.device("meta"):
        layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.Flatten(), nn.Linear(8 * 5 * 4, 7)
        )
    found = count(layers, (8, 10))
    assert found.num_parameters == 8 * 3 * 9 + 160 * 7 + 7
    assert found.multiply_adds == (8 * 5 * 4) * (3 * 9) + 160 * 7


def test_resnet152d_costs_what_timm_publishes_and_more_without_its_last_stride():
    with torch.device("meta"):
        plain = make_encoder_backbone("resnet152d")
    published = 11.8e9  # timm's results tables, 224 px, with the 2 M of the classifier
    assert count(plain, (224, 224)).multiply_adds == pytest.approx(published, rel=0.01)
    assert count(plain, (224, 224)).num_parameters == 60_210_000 - 2_049_000 + 2_040  # 60.21 M with the classifier
    m0 = costs_of(resolve("m0", "full"))
    # Stage 4 on 14×14 instead of 7×7: three times its 0.7 G more.
    assert 1.8e9 < m0.multiply_adds - count(plain, (224, 224)).multiply_adds < 2.4e9


def test_a_recipe_in_full_can_be_copied_under_another_name(tmp_path: Path):
    for name in ("m0", "m9", "m16"):
        path = tmp_path / "copy.toml"
        path.write_text(in_full(load_recipes()[name]).replace("NAME", "mine"))
        recipes = load_recipes(path)
        assert recipes["mine"].full == recipes[name].full
        assert recipes["mine"].tiny == recipes[name].tiny
        assert recipes["mine"].trained_on == recipes[name].trained_on
        assert recipes["mine"].description == recipes[name].description
    detector = tmp_path / "detector.toml"
    detector.write_text(ok("models", "CascadeMaskRCNN").replace("NAME", "Mine"))
    known = read_catalogue([detector]).detectors
    assert known["Mine"].full == known["CascadeMaskRCNN"].full
    assert known["Mine"].tiny == known["CascadeMaskRCNN"].tiny


def test_the_list_has_a_teams_models_after_the_papers(tmp_path: Path):
    (tmp_path / "ours.toml").write_text(OURS)
    listed = json.loads(ok("models", "--recipes", tmp_path / "ours.toml", "--json"))
    assert list(listed["retrievers"])[-1] == "m18"
    assert listed["retrievers"]["m18"]["full"]["backbone"] == "convnext_atto"
    assert listed["retrievers"]["m18"]["published_acc10"] is None
    assert "trained" not in listed
    (tmp_path / "detectors.toml").write_text("[detectors.Mine]\n" + "\n".join(_smallest_detector()))
    both = ("--recipes", tmp_path / "ours.toml", "--recipes", tmp_path / "detectors.toml")
    listed = json.loads(ok("models", *both, "--json"))
    assert list(listed["retrievers"])[-1] == "m18"
    assert list(listed["detectors"])[-1] == "Mine"
    (tmp_path / "more.toml").write_text(OURS.replace("m18", "m19"))
    assert "has retrievers as well" in refused("models", *both, "--recipes", tmp_path / "more.toml")


def _smallest_detector() -> list[str]:
    return ["[detectors.Mine.full]", 'config = "gfl/gfl_r50_fpn_1x_coco.py"']


def test_every_line_of_the_list_fits_into_80_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "ours.toml").write_text(OURS)
    ok("enter", "encoder", "vit", "--timm", "vit_tiny_patch16_224", "--init-from", "none", "--work", tmp_path)
    shown = ok("models", "--recipes", tmp_path / "ours.toml", "--work", tmp_path)
    assert max(map(len, shown.splitlines())) <= 80
    rows = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert "vit_tiny_patch16_224" in rows["vit"]
    assert rows["m18"].split()[1] == "convnext_atto"
    for number in range(18):
        assert f"m{number}" in rows
    assert "…" not in shown


def test_costs_are_shown_and_in_json_at_both_scales(monkeypatch: pytest.MonkeyPatch):
    some = {name: load_recipes()[name] for name in ("m0", "m8", "m9", "m10")}
    monkeypatch.setattr("harness.retrieval.recipes.load_recipes", lambda extra=None: some)
    counted: list[str] = []
    count_network = costs.count
    monkeypatch.setattr(costs, "count", lambda network, wh: (counted.append("once"), count_network(network, wh))[1])
    listed = json.loads(ok("models", "--costs", "--json"))["retrievers"]
    assert len(counted) == 2 * 3  # m8 has m0's network
    assert listed["m8"]["costs"] == listed["m0"]["costs"]
    assert listed["m0"]["costs"]["full"] == asdict(costs.costs_of(some["m0"].full))
    tiny = {name: recipe["costs"]["tiny"]["multiply_adds"] for name, recipe in listed.items()}
    assert tiny["m10"] > 1.5 * tiny["m0"] > 1.5 * tiny["m9"] > 0
    monkeypatch.setattr("harness.retrieval.recipes.load_recipes", lambda extra=None: {"m0": some["m0"]})
    shown = [line.split() for line in ok("models", "--costs").splitlines()]
    assert [words[-4:] for words in shown if words[:2] == ["m0", "resnet152d"]] == [["60.3", "M", "13.9", "G"]]


def test_what_is_trained_says_on_what(tmp_path: Path):
    ok("enter", "encoder", "vit", "--timm", "vit_tiny_patch16_224", "--init-from", "none", "--work", tmp_path)
    folder = tmp_path / "models" / "retrievers" / "m7"
    folder.mkdir()
    seen = [
        {"fingerprint": "a" * 64, "split": split, "num_photos": 9, "image_ids_sha256": "b" * 64, "rendered": True}
        for split in ("train", "validation")
    ]
    card = {"name": "m7", "recipe": {}, "weights_sha256": "c" * 64, "trained_on": seen, "seconds": 1.0}
    (folder / "card.json").write_text(json.dumps(card | {"scale": "tiny", "num_steps": 5, "seed": 3}))
    trained = json.loads(ok("models", "--work", tmp_path, "--json"))["trained"]
    assert trained["detectors"] == {}
    assert list(trained["retrievers"]) == ["m7", "vit"]
    m7 = trained["retrievers"]["m7"]
    assert m7["summary"] == "tiny, 5 steps, seed 3, on 9 RENDERED photos of train, 9 RENDERED photos of validation"
    assert [photos["split"] for photos in m7["trained_on"]] == ["train", "validation"]
    assert m7["rendered"]
    assert not trained["retrievers"]["vit"]["rendered"]
    shown = " ".join(ok("models", "--work", tmp_path).split())
    assert "9 RENDERED photos of train, 9 RENDERED photos of validation" in shown


def test_an_unknown_name_lists_what_there_is():
    assert "unknown model 'm40'; there are ATSS," in refused("models", "m40")
