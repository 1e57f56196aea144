"""A detector is judged on photos that are left for it, and whoever was chosen by photos is marked on them."""

import json
from pathlib import Path

import pytest

from harness.data.deepfashion2 import read_split
from harness.training.pairs import held_out_pairs
from harness.workplace import Workplace
from tests.commands import ok, refused


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "data"
    ok("data", "render", folder, "--train", 60, "--validation", 30, "--test", 2, "--workers", 1)
    return folder


def arguments(data: Path, work: Path) -> tuple[object, ...]:
    return ("train", "detector", "ATSS", "--data", data, "--work", work, "--scale", "tiny", "--steps", 4)


@pytest.fixture(scope="module")
def chosen_on_validation(data, tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp("work")
    told = ok(
        *arguments(data, work), "--hold-out", "--evaluate-on", "validation", "--patience", 3, "--eval-every", 2,
        "--accumulate", 2,
    )  # fmt: skip
    assert "best at step" in told
    return work


def test_a_row_on_the_photos_that_chose_a_detector_is_marked(data, chosen_on_validation):
    work = chosen_on_validation
    card = Workplace(work).model_card("detector", "ATSS")
    validation = read_split(data, "validation")
    assert card.saw(validation.fingerprint) == "chosen on"
    assert card.saw("another") is None
    assert card.chosen_on[0]["num_photos"] == 30
    ok("train", "retriever", "m0", "--data", data, "--work", work, "--scale", "tiny", "--steps", 2,
       "--deepfashion2-only")  # fmt: skip
    row = json.loads(ok("score", "m0 with ATSS", "--data", data, "--work", work, "--json"))
    assert row["contamination"] == "chosen on validation: ATSS"
    assert json.loads(ok("score", "m0 + GT", "--data", data, "--work", work, "--json"))["contamination"] is None


def test_fusion_may_be_fitted_on_held_out_photos_that_chose_a_detector(data, tmp_path):
    ok(*arguments(data, tmp_path), "--hold-out", "--patience", 1)
    card = Workplace(tmp_path).model_card("detector", "ATSS")
    train = read_split(data, "train")
    rest, held = held_out_pairs(train)
    assert card.chosen_on[0]["num_photos"] == len(held)
    assert not card.saw_any(train.fingerprint, held, train.photos.image_ids)
    assert card.saw_any(train.fingerprint, rest, train.photos.image_ids)
    ok("tune", "fusion", "--data", data, "--work", tmp_path, "--trials", 1, "--no-report")


def test_without_photos_to_judge_on_there_is_no_patience(data, tmp_path):
    for option in ("--patience", "--eval-every"):
        message = refused(*arguments(data, tmp_path), option, 2)
        assert "add --hold-out, or --evaluate-on validation" in message
    assert "a patience needs looks" in refused(
        *arguments(data, tmp_path), "--hold-out", "--patience", 2, "--eval-every", 0
    )
    assert not (tmp_path / "models").exists()


def test_a_detector_that_nobody_asked_to_judge_is_not_judged_at_tiny_scale(data, tmp_path):
    ok(*arguments(data, tmp_path), "--hold-out")
    logs = (tmp_path / "models" / "detectors" / "ATSS" / "logs").rglob("metrics.csv")
    assert not any("val/AP" in log.read_text() for log in logs)


def test_a_step_that_cannot_be_shared_out_is_refused_before_the_photos_are_read(tmp_path):
    message = refused(*arguments(tmp_path / "nowhere", tmp_path), "--accumulate", 5)
    assert "12 photos cannot be shared out evenly" in message
