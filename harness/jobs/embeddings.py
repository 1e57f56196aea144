"""What `run.py embed` does: the embeddings of models on box sets, how they were made, and their files for others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.pipeline import HISTOGRAM, Pipeline
from harness.spec import BoxSource
from harness.types import InputError

if TYPE_CHECKING:
    from harness.retrieval.embedding_settings import EmbeddingSettings

BOXES_FILE = "boxes.json"


@dataclass(frozen=True)
class EmbeddingReport:
    """The embeddings of one model on one box set.

    Attributes:
        name: of the model.
        boxes: the box source.
        rows: N.
        dimensions: D.
        address: in the store.
        file: the ``.npy`` of (N, D) float16.
        settings: how the model looked at the crops, in words; None for the histogram.
        source: the files that the embeddings were entered from; None where they were made here.
    """

    name: str
    boxes: str
    rows: int
    dimensions: int
    address: str
    file: str
    settings: str | None
    source: Sequence[Mapping[str, str]] | None

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)


def embed(
    pipeline: Pipeline,
    specs: Sequence[str],
    settings: EmbeddingSettings | None = None,
    *,
    keep: bool = False,
    out: Path | None = None,
) -> list[EmbeddingReport]:
    """Make the missing embeddings of all ensembles, for each box set in one pass over the photos.

    Args:
        pipeline: over the split.
        specs: ensembles, or models alone.
        settings: how the models are to look at crops; None as was kept, or plainly.
        keep: keep the settings for every command from now on; without any, let the models look plainly again.
        out: a folder for ``NAME.npy`` of every model and their boxes, in the form that ``enter embeddings`` takes.

    Raises:
        InputError: a spec cannot be read, a model is missing, there is nothing to set, or several box sets were asked
            for where one folder is to be filled.
    """
    models: dict[BoxSource, list[str]] = {}
    for ensemble in map(pipeline.parse, specs):
        pipeline.members(ensemble)
        wanted = models.setdefault(ensemble.boxes, [])
        wanted += [member.model for member in ensemble.members if member.model not in wanted]
    if out is not None and len(models) > 1:
        raise InputError(f"{out}: one folder holds the embeddings of one box set, got {', '.join(map(str, models))}")
    names = list(dict.fromkeys(name for some in models.values() for name in some))
    cards = {name: pipeline.retriever_card(name) for name in names}
    free = [name for name, card in cards.items() if name != HISTOGRAM and not card.is_entered]
    _set(pipeline, names, free, settings, keep=keep)
    reports = []
    for source, wanted in models.items():
        boxes = pipeline.boxes(source)
        _, addresses = pipeline.embeddings(wanted, boxes)
        for name in wanted:
            artifact = pipeline.store.find(pipeline.embed_recipe(cards[name], boxes))
            assert artifact is not None
            reports.append(
                EmbeddingReport(
                    name=name,
                    boxes=str(source),
                    rows=artifact.facts["rows"],
                    dimensions=artifact.facts["dimensions"],
                    address=addresses[name],
                    file=str(artifact.folder / "vectors.npy"),
                    settings=pipeline.embedding_settings(name).told if name in free else None,
                    source=artifact.facts.get("made_elsewhere"),
                )
            )
        if out is not None:
            _export(out, pipeline, source, [one for one in reports if one.boxes == str(source)])
    if keep:
        pipeline.work.keep_looks({name: pipeline.embedding_settings(name).changes for name in free})
    return reports


def _set(
    pipeline: Pipeline, names: Sequence[str], free: Sequence[str], settings: EmbeddingSettings | None, *, keep: bool
) -> None:
    """Let the models look as they are told; ``free`` are those that can look otherwise."""
    from harness.retrieval.embedding_settings import EmbeddingSettings

    if settings is None and not keep:
        return
    if not free:
        raise InputError(f"{', '.join(names)}: no trained model, so there is nothing to set")
    pipeline.work.kept_looks()  # before hours of embedding: the settings can be laid over what is kept
    pipeline.looks = dict(pipeline.looks) | dict.fromkeys(free, settings or EmbeddingSettings())


def _export(out: Path, pipeline: Pipeline, source: BoxSource, reports: Sequence[EmbeddingReport]) -> None:
    from harness.data.exports import write_coco_results
    from harness.jobs.results import copy_whole

    out.mkdir(parents=True, exist_ok=True)
    write_coco_results(out / BOXES_FILE, pipeline.boxes(source).detections)
    for one in reports:
        copy_whole(Path(one.file), out / f"{one.name}.npy")
