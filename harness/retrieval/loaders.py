"""Loaders of a training's steps: which crops, decoded where, and shared out to the processes.

A step is one batch of P identities × K crops over all processes, a pure function of (seed, step). A process takes an
equal number of its identities, which follow one another; in their order the shares are the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.preflight import available_memory
from harness.retrieval.sampler import IdentityBatches
from harness.retrieval.settings import RetrieverSettings
from harness.training.fitting import StepSampler, ignore_interruptions, reader_context
from harness.training.processes import place, share_of_step
from harness.workers import available_cores, available_threads

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from harness.retrieval.training_crops import TrainingCrops


def identity_batches(
    crops: TrainingCrops, settings: RetrieverSettings, run_seed: int, accumulate: int
) -> IdentityBatches:
    """The batches of a training.

    Raises:
        InputError: their identities cannot be shared out evenly over the processes and the parts of a step.
    """
    batches = IdentityBatches(
        crops.labels, crops.is_consumer, settings.identities_per_batch, settings.crops_per_identity, run_seed
    )
    share_of_step(batches.num_identities, place().num_processes, accumulate, what="identities")
    return batches


def loaders(
    crops: TrainingCrops,
    settings: RetrieverSettings,
    batches: IdentityBatches,
    num_steps: int,
    num_workers: int | None = None,
) -> Callable[[int], DataLoader[Any]]:
    """What makes a loader over this process's share of the steps from a given one on.

    Args:
        crops: what to train on.
        settings: size and margin of a crop.
        batches: which crops a step takes.
        num_steps: of the whole training.
        num_workers: processes that decode photos meanwhile. None: where all canvases fit in memory and are worth it
            they are decoded first and no process is needed, else one a core.

    Raises:
        InputError: a photo is missing or cannot be decoded.
    """
    import torch
    from torch.utils.data import DataLoader

    from harness.retrieval.training_crops import CropDataset, fits_in_memory

    here = place()
    size = batches.num_identities * batches.num_crops
    held = num_workers is None and fits_in_memory(
        crops, settings, num_steps * size, (available_memory() or 0) // here.num_local
    )
    if num_workers is None:
        num_workers = 0 if held else max(1, available_cores() // here.num_local)
    num_threads = max(1, min(available_threads(), available_cores() // here.num_local))
    dataset = CropDataset(crops, settings, num_threads=num_threads if held else 0)
    share = size // here.num_processes
    first = here.rank * share

    def make(first_step: int) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_sampler=StepSampler(lambda step: batches.draw(step)[first : first + share], num_steps, first_step),
            collate_fn=_as_it_is,
            num_workers=num_workers,
            multiprocessing_context=reader_context(num_workers),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=num_workers > 0,
            worker_init_fn=_begin_worker,
        )

    return make


def _as_it_is(batch: Any) -> Any:
    return batch


def _begin_worker(rank: int) -> None:
    import cv2

    cv2.setNumThreads(1)  # there is a worker for every core already
    ignore_interruptions(rank)
