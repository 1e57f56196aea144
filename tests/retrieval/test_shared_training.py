"""However many processes share a step, and in however many parts: it is the same step."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.data.garments import garments_of
from harness.retrieval import module as module_file
from harness.retrieval import training
from harness.retrieval.card import RetrieverCard
from harness.retrieval.evaluation import Judge
from harness.retrieval.training import train
from harness.training import fitting, keeping
from harness.training.cards import CARD_FILE, read
from harness.training.processes import Interrupted
from harness.types import InputError

LOSSES = ("loss/softmax", "loss/centre", "loss/triplet", "loss/multi_similarity")


@pytest.fixture(scope="session")
def even(recipe):
    """A recipe of a network without batch statistics, with all four losses and a memory that batches wrap around."""
    tiny = recipe.tiny
    losses = tiny.losses.model_copy(
        update={
            "softmax": tiny.losses.softmax.model_copy(update={"weight": 0.5}),
            "centre": tiny.losses.centre.model_copy(update={"weight": 0.2}),
            "triplet": tiny.losses.triplet.model_copy(update={"weight": 0.5}),
            "memory": type(tiny.losses.memory)(size=40, from_step=2),
        }
    )
    changed = {
        "backbone": "convnext_atto",
        "backbone_options": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]},
        "learning_rate": 0.003,
        "losses": losses,
    }
    return recipe.model_copy(update={"tiny": tiny.model_copy(update=changed)})


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "weights.pt", weights_only=True)


def farthest(one: Path, other: Path) -> float:
    """The largest difference of a weight, relative to the largest weight of its tensor."""
    here, there = weights_of(one), weights_of(other)
    assert here.keys() == there.keys()
    return max(float((here[name] - there[name]).abs().max() / there[name].abs().max()) for name in here)


def rows_of(folder: Path) -> list[dict[str, float]]:
    (log,) = (folder / "logs").rglob("metrics.csv")
    with log.open() as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def shared(num_processes: int, tmp_path: Path, *trainings: dict) -> "subprocess.CompletedProcess[str]":
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(trainings))
    script = Path(__file__).with_name("shared_training.py")
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, str(script), str(num_processes), str(plan)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture
def shared_run(stripes_root):
    def of(recipe, out: Path, *, kill_at=None, **how) -> dict:
        told = {"data": str(stripes_root), "recipe": recipe.model_dump(mode="json"), "out": str(out), "how": how}
        return told | ({} if kill_at is None else {"kill_at": kill_at})

    return of


@pytest.fixture
def run(train_split, monkeypatch):
    for place in (fitting, keeping, module_file):
        monkeypatch.setattr(place, "LOG_EVERY", 1)

    def call(recipe, out_dir: Path, **more):
        parts = [garments_of(train_split, train_split.photos.image_ids)]
        return train("m12", recipe, "tiny", parts, out_dir, **({"seed": 1, "deepfashion2_only": True} | more))

    return call


@pytest.mark.slow
def test_two_processes_make_the_steps_of_one(even, recipe, run, shared_run, tmp_path):
    run(even, tmp_path / "one")
    done = shared(
        2,
        tmp_path,
        shared_run(even, tmp_path / "two"),
        shared_run(even, tmp_path / "parts", accumulate=2),
        shared_run(recipe, tmp_path / "batchnorm"),
    )
    assert done.returncode == 0, done.stderr
    alone = rows_of(tmp_path / "one")
    assert len(alone) == 8
    for name in ("two", "parts"):
        together = rows_of(tmp_path / name)
        assert len(together) == 8
        for here, there in zip(together, alone, strict=True):
            for loss in LOSSES:
                assert here[loss] == pytest.approx(there[loss], rel=1e-4, abs=1e-6), (name, loss)
            assert here["gradient_norm"] == pytest.approx(there["gradient_norm"], rel=1e-3)
        assert farthest(tmp_path / name, tmp_path / "one") < 1e-3
    card = read(tmp_path / "two" / CARD_FILE, RetrieverCard)
    assert (card.num_processes, card.num_steps) == (2, 8)
    # The same plan: whoever asks for it with another number of processes finds it done.
    assert run(even, tmp_path / "two") == card
    assert all(row["loss"] > 0 for row in rows_of(tmp_path / "batchnorm"))


@pytest.mark.slow
def test_a_shared_training_that_was_killed_goes_on_to_the_same_weights(even, shared_run, tmp_path):
    killed = shared(
        2,
        tmp_path,
        shared_run(even, tmp_path / "whole"),
        shared_run(even, tmp_path / "killed", kill_at=5, checkpoint_every=3),
    )
    assert killed.returncode != 0
    assert (tmp_path / "whole" / CARD_FILE).exists()
    assert not (tmp_path / "killed" / CARD_FILE).exists()
    resumed = shared(2, tmp_path, shared_run(even, tmp_path / "killed", checkpoint_every=3))
    assert resumed.returncode == 0, resumed.stderr
    assert read(tmp_path / "killed" / CARD_FILE, RetrieverCard).resumed_at == 3
    assert farthest(tmp_path / "killed", tmp_path / "whole") == 0


def test_a_step_in_parts_is_the_same_step(even, run, tmp_path):
    run(even, tmp_path / "whole")
    card = run(even, tmp_path / "parts", accumulate=4)
    assert card.accumulate == 4
    for here, there in zip(rows_of(tmp_path / "parts"), rows_of(tmp_path / "whole"), strict=True):
        assert [here[loss] for loss in LOSSES] == pytest.approx([there[loss] for loss in LOSSES], rel=1e-5, abs=1e-6)
    assert farthest(tmp_path / "parts", tmp_path / "whole") < 1e-4


def test_a_part_that_is_computed_twice_counts_once_for_the_statistics(recipe, run, tmp_path):
    run(recipe, tmp_path, accumulate=2, num_steps=3)
    counted = [value for name, value in weights_of(tmp_path).items() if name.endswith("num_batches_tracked")]
    assert counted
    assert all(value == 3 * 2 for value in counted)


def test_a_killed_training_with_a_memory_goes_on_to_the_same_weights(even, run, tmp_path):
    class Cut(Exception):
        pass

    def cut(_):
        raise Cut

    run(even, tmp_path / "whole")
    with pytest.raises(Cut):
        run(even, tmp_path / "cut", checkpoint_every=3, judge=Judge(5, cut))
    assert run(even, tmp_path / "cut").resumed_at == 3
    assert farthest(tmp_path / "cut", tmp_path / "whole") == 0


def test_a_step_that_cannot_be_shared_out_is_refused(recipe, run, tmp_path):
    with pytest.raises(InputError, match=r"a step's 4 identities cannot be shared out evenly over 1 .* in 3 parts"):
        run(recipe, tmp_path, accumulate=3)
    assert not list(tmp_path.iterdir())


def test_a_signal_ends_it_with_a_checkpoint_and_the_same_call_goes_on(even, run, tmp_path):
    def told(_):
        os.kill(os.getpid(), signal.SIGTERM)
        return {"acc@10": 0.5}

    run(even, tmp_path / "whole")
    with pytest.raises(Interrupted, match=r"stopped at step 5 of 8, which is kept; the same command goes on") as stop:
        run(even, tmp_path / "stopped", judge=Judge(4, told))
    assert stop.value.signal_number == signal.SIGTERM
    assert run(even, tmp_path / "stopped").resumed_at == 5
    assert farthest(tmp_path / "stopped", tmp_path / "whole") == 0


def test_running_statistics_are_held_and_batch_statistics_used():
    norm = torch.nn.BatchNorm1d(2)
    rows = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    with module_file.statistics_held(norm):
        held = norm(rows)
    assert torch.allclose(held, norm(rows))
    once = torch.nn.BatchNorm1d(2)
    once(rows)
    for name, value in norm.state_dict().items():  # the second of the two alone has counted
        assert torch.equal(value, once.state_dict()[name]), name
    assert norm.momentum == 0.1


def test_a_recipe_without_softmax_has_no_classifier(recipe, run, tmp_path):
    softmax = recipe.tiny.losses.softmax.model_copy(update={"weight": 0.0})
    losses = recipe.tiny.losses.model_copy(update={"softmax": softmax})
    without = recipe.model_copy(update={"tiny": recipe.tiny.model_copy(update={"losses": losses})})
    run(without, tmp_path, num_steps=3, checkpoint_every=2)
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert not any("classifier" in name for name in kept)
    assert all("loss/softmax" not in row for row in rows_of(tmp_path))


def test_a_diverged_training_is_named_before_it_is_kept(recipe, run, tmp_path):
    steep = recipe.model_copy(update={"tiny": recipe.tiny.model_copy(update={"learning_rate": 1e30})})
    with pytest.raises(InputError, match=r"diverged: at step \d+ its loss is not finite \(softmax .*--force"):
        run(steep, tmp_path, checkpoint_every=1)


def test_what_needs_a_gpu_is_refused_without_one(recipe, run, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="train without --sync-batchnorm"):
        run(recipe, tmp_path, sync_batchnorm=True)
    with pytest.raises(InputError, match="train without --compile"):
        run(recipe, tmp_path, compiled=True)


@pytest.mark.parametrize("compiles", [True, False])
def test_a_compiled_backbone_has_the_same_weights_or_says_why_not(
    compiles, recipe, run, trained, tmp_path, monkeypatch
):
    def backend(graph, _):
        if not compiles:
            raise RuntimeError("no kernel for this")
        return graph.forward

    whole = torch.compile
    monkeypatch.setattr(training, "check_device", lambda *_: None)
    monkeypatch.setattr(torch, "compile", lambda function: whole(function, backend=backend))
    if not compiles:
        with pytest.raises(InputError, match=r"could not compile the backbone \(.*no kernel for this.*--compile"):
            run(recipe, tmp_path, compiled=True)
        return
    run(recipe, tmp_path, compiled=True)
    assert weights_of(tmp_path).keys() == weights_of(trained).keys()
    assert farthest(tmp_path, trained) < 1e-3
