"""A retriever is judged while it trains, and goes on as if nobody had looked."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data.garments import garments_of
from harness.retrieval.card import RetrieverPlan
from harness.retrieval.embedding import Retriever
from harness.retrieval.evaluation import Judge, as_in_use
from harness.retrieval.training import train
from harness.training.cards import CARD_FILE, TrainedOn
from harness.types import InputError


class Pruned(Exception):
    """What a search raises to end a trial."""


@pytest.fixture
def run(recipe, train_split):
    def call(out_dir: Path, **more):
        parts = [garments_of(train_split, train_split.photos.image_ids)]
        return train("m12", recipe, "tiny", parts, out_dir, **({"seed": 1, "deepfashion2_only": True} | more))

    return call


@pytest.fixture
def photos(validation_split) -> TrainedOn:
    return TrainedOn.of(validation_split, validation_split.photos.image_ids)


def crops(count=5) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 48, 32, 3), dtype=np.uint8)


def told(*figures):
    """A look that says the given figures, one a look, and keeps what the model made of some crops."""
    left, seen = list(figures), []

    def look(embedder):
        torch.rand(7)
        seen.append(embedder.embed(crops()))
        return {"acc@1": 0.0, "acc@10": left.pop(0)}

    return look, seen


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "weights.pt", weights_only=True)


def alike(one: Path, other: Path) -> bool:
    here, there = weights_of(one), weights_of(other)
    return here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in here)


def test_a_look_changes_nothing(run, trained, tmp_path):
    look, seen = told(0.1, 0.2, 0.3)
    torch.manual_seed(5)
    card = run(tmp_path, judge=Judge(3, look))
    after = torch.rand(1)
    assert alike(tmp_path, trained)
    assert len(seen) == 3  # at 3, 6 and the end
    assert not np.array_equal(seen[0], seen[1])
    assert np.array_equal(seen[2], Retriever.load(tmp_path, device="cpu").embed(crops()))
    assert (card.chosen_on, card.patience, card.best_step, card.best_acc10, card.last_step) == ((), 0, None, None, 8)
    with (tmp_path / "logs/from_step_0/metrics.csv").open() as file:
        rows = {int(row["step"]): row["val/acc@10"] for row in csv.DictReader(file) if row["val/acc@10"]}
    assert rows == {3: "0.1", 6: "0.2", 8: "0.3"}
    torch.manual_seed(5)
    run(tmp_path / "unseen")
    assert torch.equal(torch.rand(1), after)


def test_the_network_is_in_use_within_and_in_training_after(recipe, trained):
    retriever = Retriever.load(trained, device="cpu")
    network = retriever._network.train()
    network.backbone.layer1.eval()  # as a frozen part would be
    modes = [part.training for part in network.modules()]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    plan = RetrieverPlan.model_construct(name="m12", recipe=recipe.tiny)

    def use():
        with as_in_use(network, plan) as embedder:
            assert not any(part.training for part in network.modules())
            assert embedder.name == "m12"
            assert np.abs(np.linalg.norm(embedder.embed(crops()), axis=1) - 1).max() < 1e-5
            raise Pruned

    with pytest.raises(Pruned):
        use()
    assert [part.training for part in network.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_the_best_weights_are_taken_and_the_card_says_by_which_photos(run, photos, tmp_path):
    look, _ = told(0.1, 0.3, 0.2, 0.2)
    card = run(tmp_path / "best", judge=Judge(2, look, patience=5, chosen_on=photos))
    assert (card.best_step, card.best_acc10, card.last_step, card.num_steps) == (4, 0.3, 8, 8)
    assert (card.chosen_on, card.chosen_by, card.evaluate_every, card.patience) == ((photos,), "acc@10", 2, 5)
    assert not list((tmp_path / "best").glob("best_*"))
    look, _ = told(0.1, 0.3, 0.3)
    other = run(tmp_path / "stopped", judge=Judge(2, look, patience=1, chosen_on=photos))
    assert (other.best_step, other.last_step) == (4, 6)
    assert alike(tmp_path / "best", tmp_path / "stopped")


def test_another_figure_may_decide(run, photos, tmp_path):
    figures = iter([(0.9, 0.1), (0.1, 0.9), (0.5, 0.5), (0.5, 0.5)])

    def look(_):
        first, tenth = next(figures)
        return {"mean": first, "acc@10": tenth}

    card = run(tmp_path, judge=Judge(2, look, figure="mean", patience=9, chosen_on=photos))
    assert (card.best_step, card.best_acc10, card.chosen_by) == (2, 0.1, "mean")


def test_a_look_that_does_not_tell_the_figure_is_noticed(run, tmp_path):
    with pytest.raises(ValueError, match=r"told acc@1, but not acc@10"):
        run(tmp_path, judge=Judge(2, lambda _: {"acc@1": 0.5}))


def test_looks_are_no_part_of_the_plan_unless_they_choose(run, photos, tmp_path):
    run(tmp_path)
    look, seen = told(0.1)
    run(tmp_path, judge=Judge(2, look))
    assert not seen  # done already
    with pytest.raises(InputError, match=r"patience: 0 there, 2 wanted"):
        run(tmp_path, judge=Judge(2, look, patience=2, chosen_on=photos))


def test_what_a_look_raises_ends_the_training_as_it_is(run, trained, tmp_path):
    def look(_):
        raise Pruned("step 6")

    with pytest.raises(Pruned, match="step 6"):
        run(tmp_path, judge=Judge(6, look), checkpoint_every=4)
    assert not (tmp_path / CARD_FILE).exists()
    assert not list(tmp_path.rglob("*.part"))
    # Nobody holds the folder, and the training goes on from its checkpoint to the weights of one that nobody ended.
    assert run(tmp_path).resumed_at == 4
    assert alike(tmp_path, trained)


def test_an_epoch_in_steps():
    assert [Judge(None, told).steps(*sizes) for sizes in ((1600, 16), (3, 16), (40, 16))] == [100, 1, 2]
    assert Judge(7, told).steps(1600, 16) == 7


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="patience of 0 or more, got 0 and 0"):
        Judge(0, told)
    with pytest.raises(InputError, match="got None and -1"):
        Judge(None, told, patience=-1)
    with pytest.raises(InputError, match="say which they are"):
        Judge(None, told, patience=1)
