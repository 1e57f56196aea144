"""Two processes train the detector that one would have trained."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from drawn_photos import write_photos

from harness.data.deepfashion2 import read_split
from harness.detection.recipes import Optimiser, load_recipes
from harness.jobs.detectors import train_detector

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SCRIPT = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[4])
from test_together import train_small

from harness.training import launching
from harness.training.processes import Interrupted

status = launching.launch(2)
if status is not None:
    sys.exit(status)
try:
    with launching.ending_together():
        for name in sys.argv[5:]:
            train_small(name, Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
except Interrupted as stop:
    print(stop, file=sys.stderr)
    sys.exit(128 + stop.signal_number)
"""


def train_small(name: str, data: Path, out: Path, num_steps: int) -> None:
    """ATSS is judged while it is trained, the others are not."""
    # Norms over the channels of one photo, not over a process's photos. Plain SGD at a low rate, which enlarges no
    # rounding: at a rate of 0.01 weights that begin 1e-7 apart are 0.03 apart after five steps. Enough photos that
    # every number that losses are divided by is above 1, below which mmdet clamps it in each process.
    recipe = load_recipes()[name]
    model = dict(recipe.tiny.model)
    model["backbone"] = {**model["backbone"], "norm_cfg": {"type": "GN", "num_groups": 4, "requires_grad": True}}
    settings = {
        "batch_size": 8,
        "pretraining": None,
        "model": model,
        "score_threshold": 0.0,
        "optimiser": Optimiser(kind="sgd", learning_rate=1e-3, weight_decay=1e-4),
    }
    recipe = recipe.model_copy(update={"tiny": recipe.tiny.model_copy(update=settings)})
    judged = {"hold_out": True, "patience": 9, "eval_every": 2} if name == "ATSS" else {}
    split = read_split(data, "train")
    train_detector(recipe, "tiny", split, out / name, seed=1, num_steps=num_steps, **judged)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    write_photos(root, "train", 24)
    return root


def start(folder: Path, data: Path, num_steps: int, *names: str):
    script = folder / "job.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(data), str(folder / "two"), str(num_steps)]
    return subprocess.Popen(
        [*command, str(Path(__file__).parent), *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def end(child, status=0):
    _, errors = child.communicate(timeout=200)
    assert child.returncode == status, errors
    return errors


def weights(folder: Path, name: str):
    return torch.load(folder / name / "weights.pt", weights_only=True)


def card(folder: Path, name: str):
    return json.loads((folder / name / "card.json").read_bytes())


def furthest(one, other):
    """Largest difference of two networks' weights, each tensor relative to its largest weight."""
    pairs = ((one[name], other[name]) for name in one if one[name].is_floating_point())
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-9)) for a, b in pairs)


def test_two_processes_take_the_steps_of_one_and_look_together(data, tmp_path):
    names = ("ATSS", "CenterNet", "RetinaNet-R101-FPN", "CascadeMaskRCNN")
    child = start(tmp_path, data, 3, *names)
    for name in names:
        train_small(name, data, tmp_path / "one", 3)
    end(child)
    for name in names:
        one, two = weights(tmp_path / "one", name), weights(tmp_path / "two", name)
        if name == "CascadeMaskRCNN":  # it samples proposals at random, each process by itself
            assert all(torch.isfinite(value).all() for value in two.values())
            assert furthest(one, two) > 0
        else:
            assert furthest(one, two) < 1e-4, name
        assert card(tmp_path / "two", name)["num_processes"] == 2
    one, two = (card(tmp_path / folder, "ATSS") for folder in ("one", "two"))
    assert one["best_step"] == two["best_step"]
    assert one["best_ap"] == pytest.approx(two["best_ap"], abs=1e-3)
    assert one["chosen_on"] == two["chosen_on"] != []


def test_interrupted_together_one_goes_on_alone(data, tmp_path):
    child = start(tmp_path, data, 8, "ATSS")
    folder = tmp_path / "two" / "ATSS"
    while not (folder / "progress.json").exists():
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    assert end(child, status=143).count("which is kept; the same command goes on from there") == 1
    kept = torch.load(folder / "last.ckpt", weights_only=False)["global_step"]
    assert 1 <= kept < 8
    train_small("ATSS", data, tmp_path / "two", 8)
    assert card(tmp_path / "two", "ATSS")["resumed_at"] == kept
    train_small("ATSS", data, tmp_path / "one", 8)
    one, two = weights(tmp_path / "one", "ATSS"), weights(tmp_path / "two", "ATSS")
    assert furthest(one, two) < 1e-3
