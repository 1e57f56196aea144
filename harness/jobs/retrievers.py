"""Training a retrieval model as people ask for it: on which garments, and judged on which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.data.garments import Garments, identity_labels
from harness.jobs.objectives import RetrievalAccuracy
from harness.retrieval.card import RetrieverCard
from harness.retrieval.evaluation import Judge
from harness.retrieval.recipes import RetrieverRecipe, Scale
from harness.retrieval.settings import RetrieverSettings
from harness.retrieval.training import train
from harness.training.cards import TrainedOn
from harness.training.pairs import annotated, held_out_pairs, training_ids
from harness.training.processes import gathered, place
from harness.types import GALLERY_LENGTH, Detections, InputError, Ints, Items, Score, Split
from harness.workers import available_cores

if TYPE_CHECKING:
    from harness.retrieval.embedding import Embedder


def train_retriever(
    name: str,
    recipe: RetrieverRecipe,
    scale: Scale,
    parts: Sequence[Garments],
    out_dir: Path,
    *,
    split: Split | None = None,
    hold_out: bool = False,
    evaluate_on: Split | None = None,
    eval_every: int | None = None,
    patience: int = 0,
    **how: Any,
) -> RetrieverCard:
    """Train a retrieval model, judged meanwhile where photos are left for that.

    Args:
        name: of the model.
        recipe: what to train.
        scale: ``full`` or ``tiny``.
        parts: what to train on, a source each.
        out_dir: the model's folder.
        split: the DeepFashion2 split whose held-out pairs are meant by ``hold_out``; needed with it.
        hold_out: ``parts`` have no garments of `held_out_pairs`: judge on these unless ``evaluate_on`` is given.
        evaluate_on: an annotated split to judge on.
        eval_every: steps between looks; None for once an epoch at full scale, or with a patience; 0 for never.
        patience: looks without a better Acc@10 that end the training, whose best weights then count; 0 for never.
        how: further arguments of `harness.retrieval.training.train`.

    Raises:
        InputError: there are no photos to judge on, or too few; and whatever `harness.retrieval.training.train` raises.
        ValueError: ``hold_out`` without ``split``, or with parts that have garments of the held-out pairs.
    """
    if hold_out:
        _check_held_out(parts, split)
    judge = _judge(scale, split if hold_out else None, evaluate_on, eval_every, patience)
    return train(name, recipe, scale, parts, out_dir, judge=judge, **how)


def check_batch(settings: RetrieverSettings, parts: Sequence[Garments]) -> None:
    """See that there are as many identities as a step is to have; a recipe's own batch shrinks, one asked for does not.

    Raises:
        InputError: there are fewer.
    """
    from harness.retrieval.training_crops import collect

    there = collect(parts).num_identities
    if there < settings.identities_per_batch:
        raise InputError(
            f"--batch {settings.identities_per_batch}x{settings.crops_per_identity}: there are {there:,} identities "
            "with two or more crops to train on; ask for at most so many a step"
        )


class GroundTruthAccuracy:
    """Official accuracy of a model that searches with ground-truth boxes: the protocol of the paper's Table 3.

    Called in every process of a training at once, each embeds its share of the photos. A consumer garment that no shop
    garment matches asks nothing; the official protocol knows none, but a training split may have them.

    Args:
        split: an annotated split.
        image_ids: (P,) int64, which of its photos; they are the whole world of queries and gallery.

    Attributes:
        chosen_on: the record of these photos.

    Raises:
        InputError: the split has no annotations, or the photos have no query or fewer than 20 gallery garments.
    """

    def __init__(self, split: Split, image_ids: Ints) -> None:
        self._split, self._items = split, _answerable(annotated(split, image_ids))
        num_gallery = int((~self._items.is_consumer).sum())
        if num_gallery < GALLERY_LENGTH:
            raise InputError(
                f"{split.root / split.name}: the {len(image_ids)} photos to judge a retriever on have {num_gallery} "
                f"shop garments, at least {GALLERY_LENGTH} are needed to search among; more photos are needed, or "
                "others to judge on (train: --evaluate-on validation)"
            )
        self.chosen_on = TrainedOn.of(split, image_ids)

    def __call__(self, embedder: Embedder) -> Mapping[str, float]:
        """``acc@1`` and ``acc@10``, in [0, 1]."""
        acc = self.score(embedder).acc
        return {"acc@1": acc[1], "acc@10": acc[10]}

    def score(self, embedder: Embedder) -> Score:
        """The official score."""
        objective = RetrievalAccuracy(
            embedder.name, self._items, lambda boxes: [self._features(embedder, boxes)], [1.0]
        )
        return objective.score(self._items.as_detections())

    def _features(self, embedder: Embedder, boxes: Detections) -> NDArray[np.float16]:
        from harness.retrieval.embedding import embed

        here = place()
        share = np.unique(boxes.image_ids, return_inverse=True)[1].reshape(-1) % here.num_processes
        mine = boxes.take(share == here.rank)
        threads = max(1, available_cores() // here.num_local)
        found = gathered(embed([embedder], self._split, mine, num_threads=threads)[embedder.name])
        features = np.empty((len(boxes), embedder.dimensions), np.float16)
        for rank, vectors in enumerate(found):
            features[share == rank] = vectors
        return features


def _answerable(items: Items) -> Items:
    labels = identity_labels(items)
    alone = items.is_consumer & ~np.isin(labels, labels[~items.is_consumer])
    return replace(items, styles=np.where(alone, 0, items.styles))


def _check_held_out(parts: Sequence[Garments], split: Split | None) -> None:
    if split is None:
        raise ValueError("hold_out: expected the split whose pairs are held out, got None")
    wanted = TrainedOn.of(split, training_ids(split, hold_out=True))
    for part in parts:
        if part.record.fingerprint == split.fingerprint and part.record != wanted:
            raise ValueError(f"{part.source}: has garments of the pairs that are to be held out")


def _judge(
    scale: Scale, held_out_of: Split | None, evaluate_on: Split | None, eval_every: int | None, patience: int
) -> Judge | None:
    if eval_every == 0:
        if patience:
            raise InputError("a patience needs looks: leave --eval-every 0 out, or --patience")
        return None
    asked = patience > 0 or eval_every is not None or evaluate_on is not None
    if not asked and not (held_out_of is not None and scale == "full"):
        return None
    if evaluate_on is not None:
        accuracy = GroundTruthAccuracy(evaluate_on, evaluate_on.photos.image_ids)
    elif held_out_of is not None:
        accuracy = GroundTruthAccuracy(held_out_of, held_out_pairs(held_out_of)[1])
    else:
        raise InputError(
            "there are no photos to judge the retriever on while it is trained; add --hold-out, or --evaluate-on "
            "validation, or leave --patience and --eval-every out"
        )
    return Judge(eval_every, accuracy, patience=patience, chosen_on=accuracy.chosen_on)
