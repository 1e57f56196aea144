"""Training is a pure function of its seed, however often it is interrupted."""

import csv
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.training.fitting import (
    FitSettings,
    StepSampler,
    Watch,
    check_precision,
    fit,
    read_progress,
    shuffled_batches,
    step_seed,
)
from harness.training.processes import Interrupted
from harness.types import InputError


@given(num_rows=st.integers(1, 20), batch=st.integers(1, 30), seed=st.integers(0, 99), epochs=st.integers(1, 4))
def test_every_row_comes_once_before_any_comes_twice(num_rows, batch, seed, epochs) -> None:
    draw = shuffled_batches(num_rows, batch, seed)
    steps = -(-num_rows * epochs // batch)
    rows = [row for step in range(steps) for row in draw(step)]
    assert all(len(draw(step)) == batch for step in range(steps))
    for epoch in range(epochs):
        assert sorted(rows[epoch * num_rows : (epoch + 1) * num_rows]) == list(range(num_rows))


def test_nothing_to_train_on_is_said() -> None:
    with pytest.raises(ValueError, match="nothing to train on"):
        shuffled_batches(0, 8, 0)


def test_a_sampler_that_begins_late_gives_the_same_batches() -> None:
    draw = shuffled_batches(7, 3, 5)
    assert list(StepSampler(draw, 9))[4:] == list(StepSampler(draw, 9, first_step=4))


@given(parts=st.integers(1, 4), first=st.integers(0, 5))
def test_the_parts_of_a_step_are_the_step(parts, first) -> None:
    draw = shuffled_batches(7, 12, 5)
    sampler = StepSampler(draw, 5, first, parts)
    batches = list(sampler)
    assert len(sampler) == 5 * parts  # of the whole training: Lightning counts from its beginning
    assert len(batches) == (5 - first) * parts
    for step in range(first, 5):
        mine = [pair for batch in batches for pair in batch if pair[0] == step]
        assert sorted(row for _, row in mine) == sorted(draw(step))
    assert {len(batch) for batch in batches} <= {12 // parts}


def test_random_places_are_independent_of_the_order_of_asking() -> None:
    first = step_seed(1, 2, 3).random()
    step_seed(1, 9, 9).random()
    assert step_seed(1, 2, 3).random() == first != step_seed(1, 3, 2).random()


def a_line(num_inputs=4, stop_at=None, die=None):
    """A linear model that learns to say 1; at step ``stop_at`` it does ``die``."""
    import pytorch_lightning as pl
    import torch

    class Line(pl.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.line = torch.nn.Linear(num_inputs, 1)
            self.steps = []

        def training_step(self, batch, _):
            if self.global_step == stop_at:
                die()
            self.steps.append(self.global_step)
            return (self.line(batch) - 1).pow(2).mean()

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), 1e-2)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    return Line()


def run(folder, line, watch=None, num_inputs=4, **settings):
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Numbers(Dataset):
        def __getitem__(self, place):
            return torch.from_numpy(step_seed(0, *place).normal(size=num_inputs).astype(np.float32))

    how = FitSettings(**{"num_steps": 30, "seed": 1, "checkpoint_every": 7, **settings})
    draw = shuffled_batches(20, 8, 1)

    def make_loader(first_step):
        return DataLoader(Numbers(), batch_sampler=StepSampler(draw, how.num_steps, first_step, how.accumulate))

    return fit(line, make_loader, how, folder, watch)


def power_cut():
    raise RuntimeError("power cut")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_killed_training_ends_with_the_weights_of_the_uninterrupted_one(accumulate, tmp_path) -> None:
    import torch

    whole = a_line()
    run(tmp_path / "whole", whole, accumulate=accumulate)
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "cut", a_line(stop_at=17, die=power_cut), accumulate=accumulate)
    resumed = a_line()
    fitted = run(tmp_path / "cut", resumed, accumulate=accumulate)
    assert (fitted.first_step, fitted.num_steps, fitted.best) == (14, 30, None)
    assert whole.steps == [step for step in range(30) for _ in range(accumulate)]
    assert resumed.steps == [step for step in range(14, 30) for _ in range(accumulate)]
    assert torch.equal(whole.line.weight, resumed.line.weight)
    assert read_progress(tmp_path / "cut") == (30, 30)
    assert read_progress(tmp_path / "none") is None


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1), (2, 4)])
def test_a_step_is_the_same_in_any_number_of_parts_also_after_a_resumption(before, after, tmp_path) -> None:
    import torch

    whole, resumed = a_line(), a_line()
    run(tmp_path / "whole", whole)
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "parts", a_line(stop_at=17, die=power_cut), accumulate=before)
    run(tmp_path / "parts", resumed, accumulate=after)
    assert resumed.steps == [step for step in range(14, 30) for _ in range(after)]
    torch.testing.assert_close(whole.line.weight, resumed.line.weight, rtol=0, atol=1e-6)


@pytest.fixture
def heeding_signals():
    """As under a terminal: what a shell starts in the background is told to ignore interruptions."""
    before = {number: signal.signal(number, handler) for number, handler in HANDLERS.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


HANDLERS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


@pytest.mark.usefixtures("heeding_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_training_after_its_step_and_keeps_it(number, tmp_path) -> None:
    import torch

    whole, resumed = a_line(), a_line()
    run(tmp_path / "whole", whole)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="stopped at step 18 of 30, which is kept") as stop:
        run(tmp_path / "cut", a_line(stop_at=17, die=lambda: os.kill(os.getpid(), number)))
    assert stop.value.signal_number == number
    assert signal.getsignal(number) == before
    assert run(tmp_path / "cut", resumed).first_step == 18
    assert torch.equal(whole.line.weight, resumed.line.weight)


@pytest.mark.usefixtures("heeding_signals")
def test_a_second_interruption_is_obeyed_at_once(tmp_path) -> None:
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(SystemExit):
        run(tmp_path, a_line(stop_at=9, die=twice))
    assert run(tmp_path, a_line()).first_step == 7


class Program:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_checkpoint_is_no_program(tmp_path) -> None:
    import torch

    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path, a_line(stop_at=17, die=power_cut))
    last = tmp_path / "last.ckpt"
    torch.save(torch.load(last, weights_only=True) | {"more": Program(tmp_path / "was run")}, last)
    with pytest.raises(InputError, match=r"last\.ckpt: the checkpoint is damaged"):
        run(tmp_path, a_line())
    assert not (tmp_path / "was run").exists()


def test_a_damaged_checkpoint_is_named_and_left(tmp_path) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path, a_line(stop_at=17, die=power_cut))
    last = tmp_path / "last.ckpt"
    whole = last.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:10], b""):
        last.write_bytes(damaged)
        with pytest.raises(InputError, match=r"last\.ckpt: the checkpoint is damaged .*--force"):
            run(tmp_path, a_line())
        assert last.read_bytes() == damaged
    last.write_bytes(whole)
    assert run(tmp_path, a_line()).first_step == 14


def test_a_checkpoint_of_another_network_is_refused(tmp_path) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path, a_line(stop_at=17, die=power_cut))
    with pytest.raises(InputError, match=r"another network: line\.weight is \(1, 4\) there and \(1, 5\) in this one"):
        run(tmp_path, a_line(num_inputs=5), num_inputs=5)


def test_what_was_half_written_is_cleared_away(tmp_path) -> None:
    for name in ("last.ckpt.part", "weights.pt.part", "best_0000003.pt.part"):
        (tmp_path / name).write_bytes(b"half")
    run(tmp_path, a_line(), num_steps=1)
    assert not list(tmp_path.glob("*.part"))


FULL = """
import resource, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_fitting import a_line, run
from harness.training.processes import Interrupted
from harness.types import InputError

resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
try:
    run(Path({folder!r}), a_line({inputs}), num_inputs={inputs}, num_steps=20)
except InputError as error:
    print(error)
    sys.exit(1)
"""


@pytest.mark.slow
def test_a_full_disk_ends_the_training_and_costs_nothing(tmp_path) -> None:
    import torch

    inputs = 30_000  # three times 120 kB in a checkpoint
    whole, resumed = a_line(inputs), a_line(inputs)
    run(tmp_path / "whole", whole, num_inputs=inputs, num_steps=20)
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "full", a_line(inputs, 9, power_cut), num_inputs=inputs, num_steps=20)
    kept = (tmp_path / "full" / "last.ckpt").read_bytes()
    script = FULL.format(tests=os.path.dirname(__file__), limit=200_000, folder=str(tmp_path / "full"), inputs=inputs)
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert told.returncode == 1, told.stderr
    assert "last.ckpt: cannot be written (File too large): it takes about 0.4 MB, and" in told.stdout
    assert "make room and give the same command again: the training goes on from step 7" in told.stdout
    assert (tmp_path / "full" / "last.ckpt").read_bytes() == kept
    assert not list((tmp_path / "full").glob("*.part"))
    assert run(tmp_path / "full", resumed, num_inputs=inputs, num_steps=20).first_step == 7
    assert torch.equal(whole.line.weight, resumed.line.weight)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_precisions_that_cannot_be_are_refused() -> None:
    import torch

    check_precision("bf16-mixed")
    with pytest.raises(InputError, match="there are 32-true, 16-mixed, bf16-mixed"):
        check_precision("8-wild")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="needs a GPU"):
            check_precision("16-mixed")


def rows_of(folder):
    with (folder / "logs" / "from_step_0" / "metrics.csv").open() as file:
        return {int(row["step"]): {k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)}


def test_the_log_has_the_rates_and_the_norm(tmp_path) -> None:
    run(tmp_path, a_line(), num_steps=40, photos_per_step=8, accumulate=2)
    rows = rows_of(tmp_path)
    assert list(rows) == [19, 39]
    for row in rows.values():
        assert row["photos_per_s"] == pytest.approx(8 * row["steps_per_s"], rel=1e-5)
        assert row["gradient_norm"] > 0
    assert rows[19]["learning_rate"] == pytest.approx(1e-2 * (1 + np.cos(19 * np.pi / 30)) / 2, rel=1e-5)


def watching(line, figures, patience, every=5):
    """Judge a line by a list of figures, one a look; the list is used up."""
    told = iter(figures)
    return Watch(every, lambda: {"AP": next(told)}, lambda: line.state_dict(), "AP", patience)


def test_patience_ends_the_training_and_the_best_weights_are_kept(tmp_path) -> None:
    import torch

    line = a_line()
    fitted = run(tmp_path, line, watching(line, [0.1, 0.3, 0.2, 0.3], patience=2))
    assert fitted.num_steps == 20  # looks at 5, 10, 15 and 20; .3 is not better than .3
    assert line.steps == list(range(20))
    assert (fitted.best.step, fitted.best.figures) == (10, {"AP": 0.3})
    ten = a_line()
    run(tmp_path / "ten", ten, watching(ten, [0.1, 0.2], patience=0), num_steps=10)
    kept = torch.load(fitted.best.weights, weights_only=True)
    straight = ten.state_dict()
    assert kept.keys() == straight.keys()
    assert all(torch.equal(kept[name], straight[name]) for name in kept)
    assert not list((tmp_path / "ten").glob("best_*"))  # without patience nobody takes them
    assert [path.name for path in tmp_path.glob("best_*")] == ["best_0000010.pt"]
    assert rows_of(tmp_path)[10]["val/AP"] == 0.3


def test_without_patience_it_goes_on_to_the_end(tmp_path) -> None:
    line = a_line()
    fitted = run(tmp_path, line, watching(line, [0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.6], patience=0), num_steps=33)
    assert fitted.num_steps == 33
    assert fitted.best.step == 33  # the end is looked at as well


@pytest.mark.parametrize("stop_at", [3, 7, 12, 14, 17])
def test_a_resumed_run_remembers_the_best_and_the_patience(stop_at, tmp_path) -> None:
    import torch

    figures = {5: 0.1, 10: 0.3, 15: 0.2, 20: 0.25}

    def judged(line):
        def look():
            return {"AP": figures[line.global_step]}

        return Watch(5, look, lambda: line.state_dict(), "AP", patience=2)

    line = a_line()
    whole = run(tmp_path / "whole", line, judged(line))
    line = a_line(stop_at=stop_at, die=power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "cut", line, judged(line))
    line = a_line()
    again = run(tmp_path / "cut", line, judged(line))
    assert (again.num_steps, again.best.step) == (whole.num_steps, whole.best.step) == (20, 10)
    one, other = (torch.load(found.best.weights, weights_only=True) for found in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    # Begun once more after the patience was used up, it makes no further step.
    line = a_line()
    assert run(tmp_path / "cut", line, judged(line)).num_steps == 20
    assert line.steps == []


def test_a_folder_is_trained_in_by_one_command_at_a_time(tmp_path):
    refusals = []

    def another():
        with pytest.raises(InputError, match="another command is training in this folder") as refusal:
            run(tmp_path, a_line())
        refusals.append(refusal)

    run(tmp_path, a_line(stop_at=9, die=another))
    assert len(refusals) == 1
    run(tmp_path, a_line())  # and when the other has ended, it may
