import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data.garments import garments_of, identity_labels
from harness.retrieval import module as module_file
from harness.retrieval import training
from harness.retrieval.card import RetrieverCard
from harness.retrieval.embedding import Retriever, embed
from harness.retrieval.recipes import find_recipe, resolve
from harness.retrieval.training import train
from harness.retrieval.training_crops import CropDataset, canvas_and_view, canvas_wh, collect, fits_in_memory
from harness.training.cards import CARD_FILE, TrainedOn, read
from harness.training.fitting import read_progress
from harness.types import InputError


def weights(model_dir: Path) -> dict[str, torch.Tensor]:
    return torch.load(model_dir / "weights.pt", weights_only=True)


def same(one: Path, other: Path) -> bool:
    here, there = weights(one), weights(other)
    return here.keys() == there.keys() and all(torch.equal(here[key], there[key]) for key in here)


@pytest.fixture
def run(recipe, train_split):
    def call(out_dir: Path, **more):
        given = {"name": "m12", "recipe": recipe, "seed": 1, "deepfashion2_only": True} | more
        name, chosen = given.pop("name"), given.pop("recipe")
        image_ids = given.pop("image_ids", train_split.photos.image_ids)
        parts = [garments_of(given.pop("split", train_split), image_ids), *given.pop("also", [])]
        return train(name, chosen, "tiny", parts, out_dir, **given)

    return call


def test_the_card_says_what_was_trained_on_what(trained, train_split, recipe):
    card = read(trained / CARD_FILE, RetrieverCard)
    assert card.name == "m12"
    assert (card.kind, card.scale, card.seed, card.num_steps) == ("retriever", "tiny", 1, 8)
    assert card.recipe == recipe.tiny
    assert card.trained_on == (TrainedOn.of(train_split, train_split.photos.image_ids),)
    assert card.trained_on[0].num_photos == 40
    assert card.wanted == find_recipe("m12").trained_on
    assert card.num_identities == 16  # ten of style 1; the second garments of pairs 1, 2, 4, 5, 7 and 8
    assert card.num_crops == 64
    assert card.num_parameters == sum(
        value.numel() for key, value in weights(trained).items() if not key.endswith(("_mean", "_var", "_tracked"))
    )
    assert read_progress(trained) == (8, 8)
    assert not [key for key in weights(trained) if key.startswith("classifier")]


def test_training_learns(run, tmp_path, recipe, validation_split):
    longer = recipe.model_copy(update={"tiny": recipe.tiny.model_copy(update={"num_steps": 60})})
    run(tmp_path / "m", recipe=longer)
    items = validation_split.items
    vectors = embed([Retriever.load(tmp_path / "m")], validation_split, items.as_detections())["m12"].astype(float)
    labels = identity_labels(items)
    known = labels >= 0
    similarity, is_same = (vectors @ vectors.T)[known][:, known], np.equal.outer(labels[known], labels[known])
    off_diagonal = ~np.eye(len(is_same), dtype=bool)
    # 0.5 is chance; one step of training gives 0.936 on these plain stripes, sixty give 0.980.
    assert _separation(similarity[is_same & off_diagonal], similarity[~is_same]) > 0.96


def _separation(same, different):
    """How often a pair of one identity is more similar than a pair of two."""
    order = np.searchsorted(np.sort(different), same)
    return order.mean() / len(different)


def test_the_same_training_gives_the_same_weights_and_another_seed_or_name_others(run, trained, tmp_path):
    run(tmp_path / "again")
    assert same(trained, tmp_path / "again")
    run(tmp_path / "seed", seed=2)
    assert not same(trained, tmp_path / "seed")
    run(tmp_path / "name", name="m12b")
    assert not same(trained, tmp_path / "name")


@pytest.mark.parametrize(("at_step", "resumed_at"), [(2, 0), (6, 4)])
def test_a_killed_training_goes_on_to_the_same_weights(run, trained, tmp_path, monkeypatch, at_step, resumed_at):
    class Killed(BaseException):
        pass

    whole_step = module_file.RetrieverModule.training_step
    seen = []

    def step(self, batch, batch_idx):
        if batch["step"] == at_step:
            raise Killed
        seen.append(batch["step"])
        return whole_step(self, batch, batch_idx)

    monkeypatch.setattr(module_file.RetrieverModule, "training_step", step)
    with pytest.raises(Killed):
        run(tmp_path / "m", checkpoint_every=4)
    assert read(tmp_path / "m" / CARD_FILE, RetrieverCard) is None
    assert seen == list(range(at_step))
    seen.clear()
    at_step = None
    run(tmp_path / "m", checkpoint_every=4)
    assert seen == list(range(resumed_at, 8))
    assert same(trained, tmp_path / "m")


def test_a_training_that_is_done_is_not_done_again(run, trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "m")
    monkeypatch.setattr(training, "fit", None)  # would raise if called
    assert run(tmp_path / "m") == read(trained / CARD_FILE, RetrieverCard)


def test_a_card_of_another_training_is_refused_and_force_replaces_it(run, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "m")
    with pytest.raises(InputError, match=r"seed: 1 there, 2 wanted.*--force"):
        run(tmp_path / "m", seed=2)
    assert same(trained, tmp_path / "m")
    assert run(tmp_path / "m", seed=2, force=True).seed == 2
    assert not same(trained, tmp_path / "m")


def test_a_training_begun_otherwise_is_refused(run, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "m")
    (tmp_path / "m/card.json").unlink()
    (tmp_path / "m/last.ckpt").write_bytes(b"a checkpoint of eight steps")
    with pytest.raises(InputError, match=r"another training of m12 .*\(num_steps: 8 there, 9 wanted\)"):
        run(tmp_path / "m", num_steps=9)


def test_lost_weights_are_noticed(run, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "m")
    (tmp_path / "m/weights.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"not the weights that card\.json speaks of"):
        run(tmp_path / "m")


@pytest.mark.parametrize("text", ["{", '{"name": "m12"}', "\xff"])
@pytest.mark.parametrize("file", ["card.json", "plan.json"])
def test_a_damaged_card_or_plan_is_named(run, tmp_path, text, file):
    (tmp_path / file).write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=rf"{file}: .*--force"):
        run(tmp_path)


def test_sources_that_are_not_there_must_be_waived(run, tmp_path, validation_split):
    with pytest.raises(InputError, match=r"Street2Shop, DARN, MVC.*--without-missing"):
        run(tmp_path, deepfashion2_only=False)
    with pytest.raises(InputError, match="DeepFashion2/validation is not among"):
        run(tmp_path, split=validation_split)
    assert not list(tmp_path.iterdir())


def test_no_source_is_trained_on_twice(tmp_path, recipe, train_split):
    part = garments_of(train_split, train_split.photos.image_ids)
    with pytest.raises(InputError, match="DeepFashion2/train was given twice, and its garments would be their own neg"):
        train("m4", recipe, "tiny", [part, part], tmp_path / "out", seed=0, deepfashion2_only=True)
    assert not (tmp_path / "out").exists()


def test_a_model_of_train_and_validation(run, tmp_path, recipe, train_split, validation_split):
    m7 = find_recipe("m7").model_copy(update={"tiny": recipe.tiny})
    with pytest.raises(InputError, match="also trains on DeepFashion2/validation"):
        run(tmp_path, recipe=m7, deepfashion2_only=False)
    also = [garments_of(validation_split, validation_split.photos.image_ids)]
    card = run(tmp_path, name="m7", recipe=m7, deepfashion2_only=False, also=also, num_steps=2)
    assert [part.split for part in card.trained_on] == ["train", "validation"]
    assert card.num_identities == 32  # pair ids of two splits are different pairs


def test_only_the_photos_asked_for_are_used(train_split):
    crops = collect([garments_of(train_split, np.arange(1, 9))])
    assert [int(path.stem) for path in crops.photos] == list(range(1, 9))
    assert crops.num_identities == 3
    assert crops.labels.tolist() == [0] * 4 + [1, 2] * 4 or sorted(crops.labels.tolist()) == [0] * 4 + [1] * 4 + [2] * 4


def test_too_little_to_train_on(run, tmp_path, train_split):
    with pytest.raises(InputError, match="only 1 garment identities"):
        run(tmp_path, image_ids=np.arange(1, 5))
    with pytest.raises(InputError, match="only 0 garment identities"):
        run(tmp_path, image_ids=np.zeros(0, np.int64))
    with pytest.raises(InputError, match="no photo 000099"):
        run(tmp_path, image_ids=np.array([1, 99]))
    with pytest.raises(InputError, match="has no annotations"):
        run(tmp_path, split=replace(train_split, items=None))


def test_epochs_become_steps(train_split, recipe):
    crops = collect([garments_of(train_split, train_split.photos.image_ids)])
    assert training._steps_of_epochs(crops, recipe.tiny, 16) == 200 * 64 // 16
    assert training._steps_of_epochs(crops, recipe.tiny, 48) == 267


def test_a_card_is_json_that_reads_back(trained):
    card = read(trained / CARD_FILE, RetrieverCard)
    assert json.loads((trained / "card.json").read_text())["recipe"]["descriptors"] == ["GeM", "MAC"]
    assert type(card).model_validate_json(card.model_dump_json()) == card


def test_subset_records_tell_subsets_apart(train_split):
    one, other = (TrainedOn.of(train_split, np.array(ids)) for ids in ([1, 2], [1, 3]))
    assert one != other
    assert TrainedOn.of(train_split, np.array([2, 1, 1])) == one


def test_the_view_of_a_canvas_is_the_models_own_crop():
    from harness.data.crops import crop

    settings = resolve("m0", "tiny").model_copy(update={"input_wh": (40, 40), "margin": 0.0})
    ramp = np.arange(100, dtype=np.uint8)
    photo = np.stack([np.tile(ramp, (100, 1)), np.tile(ramp[:, None], (1, 100)), np.zeros((100, 100))], axis=2)
    photo = photo.astype(np.uint8)
    for box in ([30.0, 30, 70, 70], [0.0, 60, 40, 100]):
        canvas, view = canvas_and_view(photo, np.array(box), settings)
        assert canvas.shape[:2] == canvas_wh(settings)[::-1]
        side = np.tile(canvas_wh(settings), 2)
        x1, y1, x2, y2 = view * side
        seen = canvas[round(y1) : round(y2), round(x1) : round(x2), :2].reshape(-1, 2).mean(0)
        own = crop(photo, box, (40, 40), 0.0)[..., :2].reshape(-1, 2).mean(0)
        assert np.abs(seen - own).max() < 1.5


def test_crops_decoded_as_needed_are_those_held_in_memory(train_split, recipe):
    crops = collect([garments_of(train_split, train_split.photos.image_ids)])
    places = [(3, 5), (3, 0), (3, 63)]
    datasets = [CropDataset(crops, recipe.tiny, num_threads=threads) for threads in (1, 3, 0)]
    assert [dataset.held is None for dataset in datasets] == [False, False, True]
    held, threaded, decoded = (dataset.__getitems__(places) for dataset in datasets)
    assert all(torch.equal(held[key], decoded[key]) for key in ("canvases", "views", "labels"))
    assert all(torch.equal(held[key], threaded[key]) for key in ("canvases", "views", "labels"))
    assert held["step"] == 3


def test_what_is_held_in_memory_depends_on_what_is_free_and_on_how_often_it_is_drawn(train_split, recipe):
    crops = collect([garments_of(train_split, train_split.photos.image_ids)])
    width, height = canvas_wh(recipe.tiny)
    needed = 64 * width * height * 3
    assert fits_in_memory(crops, recipe.tiny, 1, 4 * needed)
    assert not fits_in_memory(crops, recipe.tiny, 64, 4 * needed - 1)
    many = replace(crops, labels=np.zeros((1 << 30) // (width * height * 3) + 1, np.int64))
    assert not fits_in_memory(many, recipe.tiny, len(many.labels) - 1, 1 << 40)
    assert fits_in_memory(many, recipe.tiny, len(many.labels), 1 << 40)


@pytest.mark.slow
def test_workers_do_not_change_the_result(run, trained, tmp_path):
    run(tmp_path / "m", num_workers=1)
    assert same(trained, tmp_path / "m")


def test_learning_rate_warms_up_and_falls_to_zero():
    shares = [module_file.learning_rate_share(step, 100, 10) for step in range(101)]
    assert shares[0] == pytest.approx(1 / 11)
    assert max(shares) == shares[10] == 1
    assert all(later < earlier for earlier, later in pairwise(shares[10:]))
    assert shares[100] == pytest.approx(0)
    assert shares[55] == pytest.approx(0.5)
