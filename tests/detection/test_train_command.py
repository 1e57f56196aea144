"""`train detector` from the shell's side: a config of the user's becomes a box source."""

from __future__ import annotations

import json

from drawn_photos import write_photos
from test_config_recipes import SMALL_FCOS
from typer.testing import CliRunner

from run import app


def run(*arguments: object):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_a_config_is_trained_detects_and_can_be_named_in_an_ensemble(tmp_path):
    for name in ("train", "validation"):
        write_photos(tmp_path / "data", name, 4)
    (tmp_path / "my.py").write_text(SMALL_FCOS)
    options = ("--data", tmp_path / "data", "--work", tmp_path / "work")
    done = run(
        "train", "detector", "My-FCOS.2", "--config", tmp_path / "my.py", "--steps", 1, "--batch-size", 2, *options
    )
    assert done.exit_code == 0, done.output
    assert "the learning rate goes from 0.01 to 0.00125" in done.stderr
    assert "trained My-FCOS.2" in done.stdout
    done = run("detect", "My-FCOS.2", *options)
    assert done.exit_code == 0, done.output
    assert "boxes of My-FCOS.2 on validation" in done.stdout
    card = json.loads((tmp_path / "work" / "models" / "detectors" / "My-FCOS.2" / "card.json").read_text())
    assert card["recipe"]["model"]["type"] == "FCOS"
    assert card["initial_weights"] is None
    from harness.data.deepfashion2 import read_split
    from harness.pipeline import Pipeline
    from harness.workplace import Workplace

    pipeline = Pipeline(Workplace(tmp_path / "work"), read_split(tmp_path / "data", "validation"))
    assert str(pipeline.parse("m4 with my-fcos.2@5")) == "m4 + My-FCOS.2@5"


def test_recipes_of_a_file_are_listed(tmp_path):
    (tmp_path / "mine.toml").write_text(
        '[detectors.Mine.full]\nconfig = "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py"\n'
    )
    done = run("models", "--recipes", tmp_path / "mine.toml", "--json")
    assert done.exit_code == 0, done.output
    listed = json.loads(done.stdout)["detectors"]
    assert list(listed)[-1] == "Mine"
    assert listed["Mine"]["full"]["transforms"] == listed["ATSS"]["full"]["transforms"]
    assert "Mine" in run("models", "--recipes", tmp_path / "mine.toml").stdout
    assert "Mine" not in json.loads(run("models", "--json").stdout)["detectors"]


def test_a_missing_config_or_name_is_one_message(tmp_path):
    write_photos(tmp_path / "data", "train", 2)
    done = run("train", "detector", "Nope", "--data", tmp_path / "data", "--work", tmp_path / "work")
    assert done.exit_code == 1
    assert "unknown detector 'Nope'" in str(done.exception)
    assert not (tmp_path / "work").exists()
