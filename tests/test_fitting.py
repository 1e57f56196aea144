"""Training is a pure function of its seed, however often it is interrupted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.fitting import FitSettings, StepSampler, fit, read_progress, shuffled_batches, step_seed


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


def test_random_places_are_independent_of_the_order_of_asking() -> None:
    first = step_seed(1, 2, 3).random()
    step_seed(1, 9, 9).random()
    assert step_seed(1, 2, 3).random() == first != step_seed(1, 3, 2).random()


def test_a_killed_training_ends_with_the_weights_of_the_uninterrupted_one(tmp_path) -> None:
    import pytorch_lightning as pl
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Numbers(Dataset):
        def __getitem__(self, place):
            return torch.from_numpy(step_seed(0, *place).normal(size=4).astype(np.float32))

    class Line(pl.LightningModule):
        def __init__(self, stop_at):
            super().__init__()
            torch.manual_seed(0)
            self.line = torch.nn.Linear(4, 1)
            self.stop_at = stop_at
            self.steps = []

        def training_step(self, batch, _):
            if self.global_step == self.stop_at:
                raise RuntimeError("power cut")
            self.steps.append(self.global_step)
            return (self.line(batch) - 1).pow(2).mean()

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), 1e-2)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def run(folder, stop_at=None):
        line = Line(stop_at)
        sampler = shuffled_batches(20, 8, 1)
        fit(
            line,
            lambda first: DataLoader(Numbers(), batch_sampler=StepSampler(sampler, 30, first)),
            FitSettings(num_steps=30, seed=1, checkpoint_every=7),
            folder,
        )
        return line

    whole = run(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "cut", stop_at=17)
    resumed = run(tmp_path / "cut")
    assert whole.steps == list(range(30))
    assert resumed.steps == list(range(14, 30))
    assert torch.equal(whole.line.weight, resumed.line.weight)
    assert read_progress(tmp_path / "cut") == (30, 30)
    assert read_progress(tmp_path / "none") is None
