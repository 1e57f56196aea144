"""Waiting for data is told apart from work."""

import csv

import pytest

from harness.training import waiting
from harness.training.fitting import FitSettings, StepSampler, fit


def test_only_work_and_the_gaps_between_batches_count(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(waiting.time, "perf_counter", lambda: clock[0])
    found = waiting.Waiting()
    found._on_gpu = False

    def passes(seconds):
        clock[0] += seconds

    passes(5)  # the first batch is made ready: no training yet
    found.begins()
    for work, look, gap in ((1, 9, 2), (1, 0, 0), (3, 5, 4)):
        passes(work)
        found.ends()
        passes(look)
        found.resumes()
        passes(gap)
        found.begins()
    assert found.take() == 6 / 11
    assert found.take() == 0
    passes(2)
    found.ends()
    assert found.take() == 0
    assert (found.waited_s, found.worked_s, found.share) == (6, 7, 6 / 13)


@pytest.mark.parametrize(("load_s", "step_s"), [(3, 1), (1, 3)])
def test_the_log_and_the_outcome_say_who_waits(load_s, step_s, tmp_path, monkeypatch):
    import pytorch_lightning as pl
    import torch
    from torch.utils.data import DataLoader, Dataset

    clock = [0.0]
    as_it_is = waiting.Waiting.__init__

    def by_that_clock(self):
        as_it_is(self)
        self._on_gpu = False

    monkeypatch.setattr(waiting.Waiting, "__init__", by_that_clock)
    monkeypatch.setattr(waiting.time, "perf_counter", lambda: clock[0])

    class Slow(Dataset):
        def __getitem__(self, place):
            clock[0] += load_s
            return torch.ones(2)

    class Line(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.line = torch.nn.Linear(2, 1)

        def training_step(self, batch, _):
            clock[0] += step_s
            return self.line(batch).sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.01)

    def make_loader(first_step):
        return DataLoader(Slow(), batch_sampler=StepSampler(lambda _: [0], 20, first_step))

    fitted = fit(Line(), make_loader, FitSettings(20, 0, photos_per_step=3, seen="crops"), tmp_path)
    with (tmp_path / "logs/from_step_0/metrics.csv").open() as file:
        (row,) = (row for row in csv.DictReader(file) if row["data_wait_share"])
    for share in (float(row["data_wait_share"]), fitted.data_wait_share):
        assert share == pytest.approx(19 * load_s / (19 * load_s + 20 * step_s), abs=1e-4)  # not the first batch
    assert float(row["crops_per_s"]) == pytest.approx(3 * float(row["steps_per_s"]), rel=1e-5)
