"""Train a retriever into a folder: resumable, and never twice the same."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.artifacts import file_sha256
from harness.retrieval.card import RetrieverCard, RetrieverPlan
from harness.retrieval.evaluation import Judge, inference_weights
from harness.retrieval.recipes import RetrieverRecipe, Scale
from harness.retrieval.settings import RetrieverSettings
from harness.training.cards import TrainedOn, finish, prepare, seen_by
from harness.training.fitting import FitSettings, check_precision, fit
from harness.training.processes import first_does, join
from harness.types import InputError

if TYPE_CHECKING:
    from harness.data.garments import Garments
    from harness.retrieval.cgd import CGD
    from harness.retrieval.initial_weights import InitialWeights
    from harness.retrieval.training_crops import TrainingCrops


def train(
    name: str,
    recipe: RetrieverRecipe,
    scale: Scale,
    parts: Sequence[Garments],
    out_dir: Path,
    *,
    seed: int,
    num_steps: int | None = None,
    deepfashion2_only: bool = False,
    garments_sha256: str | None = None,
    copied_from: tuple[TrainedOn, ...] = (),
    init_from: Path | str | None = None,
    num_workers: int | None = None,
    checkpoint_every: int = 100,
    precision: str | None = None,
    accumulate: int = 1,
    sync_batchnorm: bool = False,
    compiled: bool = False,
    judge: Judge | None = None,
    ms_loss_from: str | None = None,
    force: bool = False,
) -> RetrieverCard:
    """Train a retriever; go on where an interrupted training of the same plan stopped.

    Weights, data order and augmentation depend on (seed, name): two models of one recipe differ. Every process of
    `harness.training.processes` calls this; a step has the recipe's crops however many processes share them, and in
    however many parts, and its losses are of all of them. Only batch statistics are of a process's part of a step.

    Args:
        name: of the model; it says in the card and in messages who it is.
        recipe: what to train.
        scale: ``full`` or ``tiny``.
        parts: what to train on, a source each (m7 wants DeepFashion2's validation split as well).
        out_dir: ``weights.pt`` and ``card.json`` go here, with ``last.ckpt``, ``logs/`` and ``progress.json``.
        seed: at least 0.
        num_steps: optimiser steps instead of the recipe's.
        deepfashion2_only: train on the given sources although the recipe names further sources.
        garments_sha256: which garments of the parts are left, where copies were taken out; another number is another
            training.
        copied_from: splits of which copies are among the garments; the card tells of them, so that rows are marked.
        init_from: weights to begin with: ``imagenet`` (timm's), ``none`` (random ones), or a path: a file of timm's, or
            the folder of a model trained here. None begins as the recipe says.
        num_workers: processes that decode photos; None for none where the crops fit in memory, else one a core.
        checkpoint_every: steps between checkpoints.
        precision: Lightning's precision string; None takes the recipe's on a GPU and 32 bits on a CPU.
        accumulate: parts of a process's share of a step that are computed one after the other, each of them twice: the
            same step in less memory.
        sync_batchnorm: batch statistics over all GPUs; on a CPU there are none.
        compiled: let torch compile the backbone; needs a GPU.
        judge: how the model is judged meanwhile; None without. What its look raises ends the training as it is: the
            same call goes on from the last checkpoint.
        ms_loss_from: for the card: where the values of a searched multi-similarity loss are from.
        force: throw away what another training left in the folder.

    Returns:
        The card; at once, without training, where the folder holds the same training done.

    Raises:
        InputError: the recipe wants other data than is given, the data hold fewer than two identities, a step cannot be
            shared out evenly, the folder holds another training, weights to start from cannot be had, or this machine
            cannot train so.
        Interrupted: by a signal; the same call goes on.
    """
    import torch

    from harness.retrieval.initial_weights import find
    from harness.retrieval.loaders import identity_batches, loaders
    from harness.retrieval.module import RetrieverModule
    from harness.retrieval.training_crops import collect

    began = time.perf_counter()
    check_sources(name, recipe, [part.source for part in parts], deepfashion2_only)
    settings = recipe.at(scale)
    precision = precision or (settings.precision if torch.cuda.is_available() else "32-true")
    check_precision(precision)
    check_device(sync_batchnorm, compiled)
    begin_with = None if init_from is None else find(str(init_from), settings.backbone)
    if init_from is not None:
        settings = settings.model_copy(update={"pretrained": False})
    crops = collect(parts)
    run_seed = _run_seed(seed, name)
    batches = identity_batches(crops, settings, run_seed, accumulate)
    batch_size = batches.num_identities * batches.num_crops
    seen, chose = ((), ()) if begin_with is None else seen_by(begin_with)
    plan = RetrieverPlan(
        name=name,
        scale=scale,
        recipe=settings,
        wanted=recipe.trained_on,
        trained_on=tuple(part.record for part in parts),
        seed=seed,
        num_steps=num_steps or settings.num_steps or _steps_of_epochs(crops, settings, batch_size),
        garments_sha256=garments_sha256,
        copied_from=copied_from,
        init_from_sha256=None if begin_with is None else file_sha256(begin_with),
        init_trained_on=seen,
        init_chosen_on=chose,
    )
    every = 0 if judge is None else judge.steps(len(crops.labels), batch_size)
    if judge is not None and judge.patience:
        assert judge.chosen_on is not None
        chosen = {"chosen_on": (judge.chosen_on,), "chosen_by": judge.figure}
        plan = plan.model_copy(update={**chosen, "evaluate_every": every, "patience": judge.patience})
    here = join()
    if force:
        if begin_with is not None and begin_with.resolve().parent == out_dir.resolve():
            raise InputError(f"{begin_with}: --force would throw these initial weights away; copy them elsewhere first")
        _fresh_network(settings, crops.num_identities, run_seed, init_from)  # or what is there stays
    done = first_does(lambda: prepare(out_dir, plan, RetrieverCard, force=force))
    if done is not None:
        return done
    network, initial = _fresh_network(settings, crops.num_identities, run_seed, init_from)
    if compiled:
        backbone: Any = network.backbone
        backbone.forward_features = torch.compile(backbone.forward_features)
    module = RetrieverModule(settings, crops.num_identities, plan.num_steps, run_seed, network, accumulate)
    fit_settings = FitSettings(
        num_steps=plan.num_steps,
        seed=seed,
        checkpoint_every=checkpoint_every,
        precision=precision,
        gradient_clip=settings.gradient_clip,
        photos_per_step=batch_size,
        seen="crops",
        sync_batchnorm=sync_batchnorm,
    )
    watch = None if judge is None else judge.watch(plan, network, every)
    with _compile_errors():
        fitted = fit(
            module, loaders(crops, settings, batches, plan.num_steps, num_workers), fit_settings, out_dir, watch
        )

    from harness.training.keeping import clear_best, read_best

    best = fitted.best if plan.patience else None
    card = first_does(
        lambda: finish(
            out_dir,
            plan,
            RetrieverCard,
            inference_weights(network) if best is None else read_best(best.weights),
            time.perf_counter() - began,
            num_identities=crops.num_identities,
            num_crops=len(crops.labels),
            num_parameters=sum(p.numel() for key, p in network.named_parameters() if not key.startswith("classifier.")),
            best_step=None if best is None else best.step,
            best_acc10=None if best is None else best.figures.get("acc@10"),
            last_step=fitted.num_steps,
            resumed_at=fitted.first_step,
            initial_weights=initial.what if initial.sha256 else None,
            left_as_drawn=initial.left_as_drawn,
            precision=precision,
            num_processes=here.num_processes,
            accumulate=accumulate,
            data_wait_share=round(fitted.data_wait_share, 4),
            ms_loss_from=ms_loss_from,
        )
    )
    if here.rank == 0:
        clear_best(out_dir)
    return card


def _fresh_network(
    settings: RetrieverSettings, num_identities: int, run_seed: int, init_from: Path | str | None
) -> tuple[CGD, InitialWeights]:
    """The network at the start of a training: random weights of the seed, then the given ones over them."""
    import torch

    from harness.retrieval.cgd import CGD
    from harness.retrieval.initial_weights import initialise

    with torch.random.fork_rng():
        torch.manual_seed(run_seed)
        # Without its loss the classifier would be a part that no gradient reaches.
        network = CGD.of(settings, num_identities if settings.losses.softmax.weight else 0)
        asked = init_from if init_from is not None else "imagenet" if settings.pretrained else "none"
        initial = initialise(network, str(asked))
    # Channels last suits tensor cores, and takes a fifth off a small ResNet's step on a CPU.
    return network.to(memory_format=torch.channels_last), initial  # type: ignore[call-overload]


def check_device(sync_batchnorm: bool, compiled: bool) -> None:
    """See that this machine can do what only GPUs do.

    Raises:
        InputError: it cannot.
    """
    import torch

    if torch.cuda.is_available():
        return
    if sync_batchnorm:
        raise InputError("batch statistics over all devices need GPUs; on a CPU train without --sync-batchnorm")
    if compiled:
        raise InputError("a compiled backbone needs a GPU; on a CPU train without --compile")


@contextmanager
def _compile_errors() -> Iterator[None]:
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

    try:
        yield
    except (TorchDynamoException, InductorError) as error:
        why = " ".join(str(error).splitlines()[:2])  # who failed, and with what
        raise InputError(f"torch could not compile the backbone ({why}); train without --compile") from error


def _steps_of_epochs(crops: TrainingCrops, settings: RetrieverSettings, batch_size: int) -> int:
    """Steps in which as many crops are seen as the recipe's epochs have."""
    return math.ceil(settings.epochs * len(crops.labels) / batch_size)


def _run_seed(seed: int, name: str) -> int:
    """A seed below 2^63 that depends on the user's seed and on the model's name."""
    words = np.random.SeedSequence(seed, spawn_key=tuple(name.encode())).generate_state(2, np.uint32)
    return (int(words[0]) << 31) | (int(words[1]) >> 1)


def check_sources(name: str, recipe: RetrieverRecipe, given: Sequence[str], deepfashion2_only: bool) -> None:
    """See that a recipe gets the sources that it names, and no others.

    Args:
        name: of the model, for messages.
        recipe: which recipe.
        given: names of the sources.
        deepfashion2_only: some of them may be missing.

    Raises:
        InputError: one is missing, or is not named.
    """
    unwanted = [source for source in given if source not in recipe.trained_on]
    if unwanted:
        raise InputError(
            f"retriever {name}: {', '.join(unwanted)} is not among what recipe {recipe.name} trains on "
            f"({', '.join(recipe.trained_on)}); leave it out, or take a recipe that names it"
        )
    twice = [source for row, source in enumerate(given) if source in given[:row]]
    if twice:
        raise InputError(f"retriever {name}: {twice[0]} was given twice, and its garments would be their own negatives")
    missing = [source for source in recipe.trained_on if source not in given]
    if missing and not deepfashion2_only:
        raise InputError(
            f"retriever {name}: recipe {recipe.name} also trains on {', '.join(missing)}, which was not given; "
            "say --without-missing to train on what is there (the card will say so)"
        )
