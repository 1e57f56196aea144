from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_photos import write_photos

from harness.data.deepfashion2 import read_split
from harness.data.photos import decode_rgb
from harness.detection.card import DetectorCard, DetectorPlan
from harness.detection.inference import Detector, detect
from harness.detection.module import learning_rate_factor
from harness.detection.recipes import BACKBONES_FOLDER, load_recipes
from harness.detection.settings import Optimiser
from harness.detection.training import fresh_network, train
from harness.training.cards import CARD_FILE, differences, read_trained
from harness.types import InputError

SHORT = {"batch_size": 2, "num_steps": 4, "pretraining": None}


def short(name="ATSS", **more):
    recipe = load_recipes()[name]
    return recipe.model_copy(update={"tiny": recipe.tiny.model_copy(update={**SHORT, **more})})


@pytest.fixture(scope="module")
def trained(split, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "ATSS"
    card = train(short(), "tiny", split, split.photos.image_ids, folder, seed=3)
    return folder, card


def weights_of(folder):
    return torch.load(folder / "weights.pt", weights_only=True)


def test_the_card_says_what_was_trained_on_what(trained, split):
    folder, card = trained
    assert read_trained(folder, DetectorCard) == card
    assert (card.name, card.kind, card.scale, card.seed, card.num_steps) == ("ATSS", "detector", "tiny", 3, 4)
    assert card.trained_on[0].fingerprint == split.fingerprint
    assert card.trained_on[0].num_photos == 12
    assert card.recipe == short().tiny


def test_what_is_trained_is_not_trained_again(trained, split):
    folder, card = trained
    before = (folder / CARD_FILE).stat().st_mtime_ns
    assert train(short(), "tiny", split, split.photos.image_ids, folder, seed=3) == card
    assert (folder / CARD_FILE).stat().st_mtime_ns == before


def test_another_training_in_the_same_folder_is_refused(trained, split):
    folder, _ = trained
    with pytest.raises(InputError, match=r"seed: 3 there, 4 wanted.*--force"):
        train(short(), "tiny", split, split.photos.image_ids, folder, seed=4)
    with pytest.raises(InputError, match="num_photos: 12 there, 5 wanted"):
        train(short(), "tiny", split, split.photos.image_ids[:5], folder, seed=3)


class Killed(Exception):
    pass


def test_a_killed_training_goes_on_to_the_same_weights(trained, split, tmp_path, monkeypatch):
    from harness.detection.module import DetectorModule

    folder, _ = trained
    step_of = DetectorModule.training_step

    def dies(self, batch, batch_idx):
        if batch.step == 3:
            raise Killed
        return step_of(self, batch, batch_idx)

    monkeypatch.setattr(DetectorModule, "training_step", dies)
    arguments = (short(), "tiny", split, split.photos.image_ids, tmp_path / "again")
    with pytest.raises(Killed):
        train(*arguments, seed=3, checkpoint_every=2)
    with pytest.raises(InputError, match=r"there is no trained model \(a training was begun"):
        Detector.load(tmp_path / "again")
    monkeypatch.undo()
    with pytest.raises(InputError, match="another training"):
        train(*arguments, seed=5)
    card = train(*arguments, seed=3, checkpoint_every=2)
    assert card.resumed_at == 2
    straight, resumed = weights_of(folder), weights_of(tmp_path / "again")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


@pytest.mark.parametrize(
    ("name", "accumulate", "num_workers"),
    [("RetinaNet-R101-FPN", 2, 0), ("CascadeMaskRCNN", 2, 0), ("CenterNet", 1, 2)],
)
def test_any_detector_goes_on_to_the_same_weights(name, accumulate, num_workers, split, tmp_path, monkeypatch):
    from harness.detection.module import DetectorModule

    recipe = short(name, batch_size=4, num_workers=num_workers)
    arguments = (recipe, "tiny", split, split.photos.image_ids)
    train(*arguments, tmp_path / "whole", seed=3, accumulate=accumulate)
    step_of = DetectorModule.training_step
    shown = []

    def dies(self, batch, batch_idx):
        shown.append(len(batch.targets))
        if batch.step == 3 and batch_idx % accumulate == accumulate - 1:  # with a part of the step behind it
            raise Killed
        return step_of(self, batch, batch_idx)

    monkeypatch.setattr(DetectorModule, "training_step", dies)
    with pytest.raises(Killed):
        train(*arguments, tmp_path / "cut", seed=3, accumulate=accumulate, checkpoint_every=2)
    monkeypatch.undo()
    card = train(*arguments, tmp_path / "cut", seed=3, accumulate=accumulate, checkpoint_every=2)
    assert set(shown) == {4 // accumulate}
    assert (card.resumed_at, card.accumulate, card.precision) == (2, accumulate, "32-true")
    straight, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert all(torch.equal(straight[one], resumed[one]) for one in straight)


def test_a_checkpoint_of_another_architecture_is_refused(split, tmp_path):
    plan = DetectorPlan.of(short(), "tiny", split, split.photos.image_ids, 3, None)
    tmp_path.joinpath("plan.json").write_text(plan.model_dump_json())
    torch.save({"global_step": 2, "state_dict": {"network.model.head.weight": torch.zeros(3)}}, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=r"last\.ckpt: the checkpoint is of another network"):
        train(short(), "tiny", split, split.photos.image_ids, tmp_path, seed=3)
    assert (tmp_path / "last.ckpt").is_file()


def test_a_step_that_cannot_be_shared_out_is_refused_before_anything_is_read(split, tmp_path):
    with pytest.raises(InputError, match="a step's 2 photos cannot be shared out evenly over 1 processes in 3 parts"):
        train(short(), "tiny", split, split.photos.image_ids, tmp_path / "model", seed=3, accumulate=3)
    assert not (tmp_path / "model").exists()


def test_half_precision_trains_on_a_cpu(split, tmp_path):
    arguments = (short(num_steps=2), "tiny", split, split.photos.image_ids)
    card = train(*arguments, tmp_path / "half", seed=3, precision="bf16-mixed")
    train(*arguments, tmp_path / "whole", seed=3)
    half, whole = weights_of(tmp_path / "half"), weights_of(tmp_path / "whole")
    assert card.precision == "bf16-mixed"
    assert not all(torch.equal(half[name], whole[name]) for name in whole)
    assert all(value.dtype != torch.bfloat16 for value in half.values())
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="needs a GPU"):
            train(*arguments, tmp_path / "no", seed=3, precision="16-mixed")
        with pytest.raises(InputError, match="need GPUs"):
            train(*arguments, tmp_path / "no", seed=3, sync_batchnorm=True)


def test_the_schedule_is_that_of_the_recipe():
    """Hand-worked: 500 steps of warm-up, then a tenth from two thirds and a hundredth from eleven twelfths on."""
    scale = load_recipes()["ATSS"].full.model_copy(
        update={"warmup_steps": 500, "warmup_fraction": 0.0, "schedule": "steps", "milestones": (0.6667, 0.9167)}
    )
    at = {step: learning_rate_factor(scale, step, 12_000) for step in (0, 250, 499, 500, 8000, 8001, 11_000, 11_001)}
    expected = {0: 1 / 501, 250: 251 / 501, 499: 500 / 501, 500: 1, 8000: 1, 8001: 0.1, 11_000: 0.1, 11_001: 0.01}
    assert at == pytest.approx(expected)
    cosine = scale.model_copy(update={"schedule": "cosine", "warmup_steps": 0, "warmup_fraction": 0.1})
    at = {step: learning_rate_factor(cosine, step, 100) for step in (0, 9, 10, 55, 100)}
    assert at == pytest.approx({0: 1 / 11, 9: 10 / 11, 10: 1, 55: 0.5, 100: 0})
    assert learning_rate_factor(scale, 4, 10) == pytest.approx(5 / 6)  # a short run warms up for half of it at most


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_schedule_counts_optimiser_steps(accumulate, split, tmp_path):
    recipe = short(num_steps=40, warmup_steps=10, warmup_fraction=0.0, schedule="steps", milestones=(0.5,))
    train(recipe, "tiny", split, split.photos.image_ids, tmp_path, seed=3, accumulate=accumulate)
    with (tmp_path / "logs" / "from_step_0" / "metrics.csv").open() as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file)}
    assert list(rows) == [19, 39]
    rate = recipe.tiny.optimiser.learning_rate
    assert [float(rows[step]["learning_rate"]) for step in (19, 39)] == pytest.approx([rate, rate / 10])
    assert {"loss/sum", "loss/cls", "loss/bbox", "photos_per_s", "steps_per_s", "gradient_norm"} <= set(rows[19])


def test_force_begins_anew(split, tmp_path):
    first = train(short(), "tiny", split, split.photos.image_ids, tmp_path, seed=1, num_steps=1)
    second = train(short(), "tiny", split, split.photos.image_ids, tmp_path, seed=2, num_steps=1, force=True)
    assert (first.seed, second.seed) == (1, 2)
    assert first.weights_sha256 != second.weights_sha256


def test_backbones_are_trained_on_crops_once_for_all(split, tmp_path):
    settings = load_recipes()["ATSS"].tiny.pretraining.model_copy(update={"num_steps": 2, "batch_size": 4})
    for name in ("ATSS", "RetinaNet-R101-FPN"):
        recipe = short(name, pretraining=settings, num_steps=1)
        train(recipe, "tiny", split, split.photos.image_ids, tmp_path / name, seed=1)
    backbones = list((tmp_path / BACKBONES_FOLDER).iterdir())
    assert len(backbones) == 1
    pretrained = weights_of(backbones[0])
    plan = DetectorPlan.of(short(), "tiny", split, split.photos.image_ids, 1, 1)
    begun = fresh_network(plan, backbones[0] / "weights.pt").model.state_dict()
    assert all(torch.equal(begun[name], pretrained[name]) for name in pretrained)


def test_initial_weights_must_exist_and_fit(split, tmp_path):
    arguments = (short(), "tiny", split, split.photos.image_ids, tmp_path / "model")
    with pytest.raises(InputError, match=r"nothing\.pth: there are no initial weights"):
        train(*arguments, seed=1, init_from=tmp_path / "nothing.pth")
    (tmp_path / "text.pth").write_bytes(b"no weights at all")
    with pytest.raises(InputError, match=r"text\.pth: cannot be read"):
        train(*arguments, seed=1, init_from=tmp_path / "text.pth")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="fits 0 of the backbone's"):
        train(*arguments, seed=1, init_from=tmp_path / "other.pth")


def test_nothing_to_train_on(split, tmp_path):
    with pytest.raises(InputError, match="no annotations"):
        train(short(), "tiny", replace(split, items=None), split.photos.image_ids, tmp_path, seed=1)


def test_differences_name_nested_fields(split):
    one = DetectorPlan.of(short(), "tiny", split, split.photos.image_ids, 1, None)
    other = DetectorPlan.of(short(max_per_image=9), "tiny", split, split.photos.image_ids, 1, None)
    assert differences(one, other) == ["recipe.max_per_image: 20 there, 9 wanted"]
    assert differences(one, one) == []


def test_boxes_are_inside_their_photos_and_few(trained, split):
    detector = Detector.load(trained[0])
    found = detect(detector, split, split.photos.image_ids, batch_size=5)
    assert len(found) > 0
    for image_id in split.photos.image_ids:
        one = found.take(found.image_ids == image_id)
        height, width = decode_rgb(split.photo_path(int(image_id))).shape[:2]
        assert len(one) <= detector.card.recipe.max_per_image
        assert (one.boxes_xyxy >= 0).all()
        assert (one.boxes_xyxy <= np.array([width, height, width, height])).all()
        assert (one.boxes_xyxy[:, 2:] > one.boxes_xyxy[:, :2]).all()
        assert (np.diff(one.scores) <= 0).all()
        assert (one.scores >= detector.card.recipe.score_threshold).all()


def test_a_photo_does_not_depend_on_its_neighbours(trained, split):
    detector = Detector.load(trained[0])
    photos = [decode_rgb(split.photo_path(int(image_id))) for image_id in split.photos.image_ids[:6]]
    together = detector.predict(photos)
    for photo, among in zip(photos, together, strict=True):
        alone = detector.predict([photo])[0]
        assert alone.category_ids.tolist() == among.category_ids.tolist()
        np.testing.assert_allclose(alone.boxes_xyxy, among.boxes_xyxy, atol=1e-3)
        np.testing.assert_allclose(alone.scores, among.scores, atol=1e-5)


def test_progress_and_no_photos(trained, split):
    detector, told = Detector.load(trained[0]), []
    detect(detector, split, split.photos.image_ids[:5], batch_size=2, progress=lambda *now: told.append(now))
    assert told == [(2, 5), (4, 5), (5, 5)]
    assert len(detect(detector, split, np.zeros(0, np.int64))) == 0
    assert detector.predict([]) == []


def test_what_is_no_photo_is_refused(trained):
    detector = Detector.load(trained[0])
    with pytest.raises(ValueError, match=r"photo 1: expected uint8"):
        detector.predict([np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), np.uint8)])


def test_foreign_or_missing_weights_are_noticed(split, tmp_path):
    train(short(), "tiny", split, split.photos.image_ids, tmp_path, seed=1, num_steps=1)
    with (tmp_path / "weights.pt").open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match=r"weights\.pt: not the weights that card\.json"):
        Detector.load(tmp_path)
    (tmp_path / "weights.pt").unlink()
    with pytest.raises(InputError, match=r"weights\.pt: the weights are missing"):
        Detector.load(tmp_path)
    (tmp_path / CARD_FILE).write_text('{"name": "ATSS"}')
    with pytest.raises(InputError, match=r"card\.json"):
        Detector.load(tmp_path)
    with pytest.raises(InputError, match="there is no trained model"):
        Detector.load(tmp_path / "elsewhere")


@pytest.mark.parametrize("name", ["CascadeMaskRCNN", "CenterNet", "RetinaNet-R101-FPN", "RetinaNet-X101-FPN"])
def test_the_other_four_train_and_look(name, split, tmp_path):
    train(short(name), "tiny", split, split.photos.image_ids, tmp_path, seed=1, num_steps=2)
    found = detect(Detector.load(tmp_path), split, split.photos.image_ids[:3])
    assert set(found.image_ids.tolist()) <= {1, 2, 3}


def test_a_training_that_diverges_says_so(split, tmp_path):
    steep = Optimiser(kind="sgd", learning_rate=1e9, weight_decay=0.0)
    recipe = short(optimiser=steep, num_steps=40, gradient_clip=None)
    with pytest.raises(InputError, match=r"diverged: at step 20 its loss is not finite \(loss/.*lower learning rate"):
        train(recipe, "tiny", split, split.photos.image_ids, tmp_path, seed=1, checkpoint_every=20)
    assert not (tmp_path / CARD_FILE).exists()
    assert not (tmp_path / "last.ckpt").exists()


@pytest.mark.slow
def test_a_detector_learns_colours(tmp_path):
    write_photos(tmp_path, "train", 100)
    split = read_split(tmp_path, "train")
    recipe = short(num_steps=120, batch_size=8)
    card = train(recipe, "tiny", split, split.photos.image_ids, tmp_path / "model", seed=1)
    found = detect(Detector.load(tmp_path / "model"), split, split.photos.image_ids)
    best = [found.take(found.image_ids == one).category_ids[:1].tolist() for one in split.photos.image_ids]
    truth = [split.items.take(split.items.image_ids == one).category_ids.tolist() for one in split.photos.image_ids]
    right = sum(bool(guess) and guess[0] in there for guess, there in zip(best, truth, strict=True))
    assert card.num_steps == 120
    assert right > 40  # of 100; guessing gives about 12


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", list(load_recipes()))
def test_the_full_scale_trains_a_step_and_looks(name, split, tmp_path):
    recipe = load_recipes()[name]
    full = recipe.full.model_copy(update={"batch_size": 1, "num_workers": 0})
    recipe = recipe.model_copy(update={"full": full})
    card = train(recipe, "full", split, split.photos.image_ids[:2], tmp_path, seed=1, num_steps=1)
    assert card.recipe.input_px == (1333, 800)
    # Without clipping, weights are finite after a step only if every gradient was; all that may learn has moved.
    after = weights_of(tmp_path)
    assert all(torch.isfinite(value).all() for value in after.values() if value.is_floating_point())
    # (The residual blocks begin closed, with a last norm of 0, so the norms inside them learn from the second step on.)
    begun = {key: value for key, value in fresh_network(card, None).model.named_parameters() if "backbone" not in key}
    still = [key for key, value in begun.items() if torch.equal(value, after[key])]
    assert len(still) < 0.1 * len(begun), still
    found = detect(Detector.load(tmp_path), split, split.photos.image_ids[:1])
    assert set(found.image_ids.tolist()) <= {1}
