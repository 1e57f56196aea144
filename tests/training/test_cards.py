"""Whoever begins with a model's weights has seen what that model has."""

import json
from pathlib import Path

import pytest

from harness.training.cards import TrainedOn, seen_by
from harness.types import InputError


def record(split: str) -> TrainedOn:
    return TrainedOn(fingerprint="f", split=split, num_photos=2, image_ids_sha256=split, rendered=True)


def told(**lists: object) -> str:
    def plain(value: object) -> object:
        return value.model_dump() if isinstance(value, TrainedOn) else [one.model_dump() for one in value]  # type: ignore

    return json.dumps({"kind": "any", **{name: plain(value) for name, value in lists.items()}})


def test_a_card_tells_of_its_own_photos_and_of_those_before(tmp_path: Path):
    train, shops, test, validation = map(record, ("train", "Street2Shop", "test", "validation"))
    lists = {"trained_on": [train], "init_trained_on": [train, shops], "init_chosen_on": [validation]}
    lists["copied_from"] = [test]
    (tmp_path / "card.json").write_text(told(**lists))
    (tmp_path / "plan.json").write_text(told(trained_on=[]))
    assert seen_by(tmp_path / "weights.pt") == ((train, shops, test), (validation,))


def test_a_checkpoint_of_an_interrupted_training_has_a_plan_and_a_backbone_one_record(tmp_path: Path):
    (tmp_path / "plan.json").write_text(told(trained_on=[record("validation")]))
    assert seen_by(tmp_path / "last.ckpt") == ((record("validation"),), ())
    (tmp_path / "card.json").write_text(told(trained_on=record("train")))
    assert seen_by(tmp_path / "weights.pt") == ((record("train"),), ())


def test_nothing_is_known_of_a_file_elsewhere(tmp_path: Path):
    assert seen_by(tmp_path / "resnet152d.safetensors") == ((), ())
    (tmp_path / "card.json").write_text('["of somebody else"]')
    assert seen_by(tmp_path / "resnet152d.safetensors") == ((), ())


@pytest.mark.parametrize("text", ["{", '{"trained_on": [{"split": "train"}]}', '{"trained_on": ["validation"]}'])
def test_a_damaged_card_is_named(tmp_path: Path, text: str):
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(InputError, match=r"card\.json: is damaged .*which photos weights\.pt has seen is unknown"):
        seen_by(tmp_path / "weights.pt")
