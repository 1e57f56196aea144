"""Fitting box fusion: settings are searched on some pairs of photos and reported on others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.box_stages import FUSE_VERSION
from harness.pipeline import Pipeline
from harness.spec import DEFAULT_BOXES, PAPER_DETECTORS, BoxSource, Ensemble
from harness.training.cards import image_ids_sha256
from harness.training.pairs import annotated, halves
from harness.types import Detections, InputError, Ints, Items

if TYPE_CHECKING:
    from harness.detection.calibration import Calibration
    from harness.detection.fusion_study import SearchSpace
    from harness.jobs.objectives import Objective

STUDIES_FOLDER = "studies"
"""In the working folder: one SQLite file a search, from which it goes on."""

_HIT_IOU = 0.5
"""A box that overlaps a garment of its category by this much is a hit, for the calibration of scores."""


@dataclass(frozen=True)
class FusionFit:
    """The settings that a search found for one fusion, and what they are worth.

    Attributes:
        settings: of the fusion, as JSON values.
        objective: what was searched for.
        value: of the settings, on the photos of the search.
        member_values: detector -> the objective of its boxes alone, on the same photos.
        num_trials: settings tried.
        num_photos: of the search.
        fitted_on: split, fingerprint and photos of the search.
        detectors: detector -> identity of the weights that were fused; the settings are of no use for others.
        report: on photos that the search did not see: how many, and the objective of the best member, of the default
            settings and of these; empty without such photos.
    """

    settings: dict[str, Any]
    objective: str
    value: float
    member_values: dict[str, float]
    num_trials: int
    num_photos: int
    fitted_on: dict[str, Any]
    detectors: dict[str, str]
    report: dict[str, Any] = field(default_factory=dict)


def fit_fusion(
    pipeline: Pipeline,
    sources: Sequence[BoxSource] | None = None,
    *,
    num_trials: int,
    seed: int,
    models: Ensemble | str | None = None,
    space: SearchSpace | None = None,
    report_on_half: bool = False,
    boxes_per_photo: int | None = None,
    max_per_image: int | None = None,
) -> dict[str, FusionFit]:
    """Fit the settings of fusions on photos that no detector was trained on, and keep them in the working folder.

    A search that was interrupted goes on at its next trial, and one that is run again with more trials goes on too.

    Args:
        pipeline: over photos that no detector was trained on.
        sources: the fusions; None for every ``WBF_n`` whose detectors are trained.
        num_trials: settings to try for each of them.
        seed: of the search.
        models: retrieval models whose Acc@10 is to become high; None for AP50.
        space: what is searched; None for the smallest space.
        report_on_half: search on one half of the pairs and report on the other; without it, search on all.
        boxes_per_photo: of each detector, the best so many a photo take part in the search; None for all.
        max_per_image: the most fused boxes a photo, put into the settings; None for no limit.

    Returns:
        The fit of each source, by its name.

    Raises:
        InputError: the split has no annotations, a model is missing, or one was trained on one of the photos; or the
            file of fitted settings or that of a search is damaged.
    """
    split = pipeline.split
    annotated(split, pipeline.image_ids)
    pipeline.work.every_fitted_fusion()  # before hours of search: the fits can be laid over it
    wanted = list(sources or _every_fusion(pipeline))
    ensemble = pipeline.parse(models) if isinstance(models, str) else models
    if ensemble is not None and ensemble.steps:
        raise InputError(f"'{ensemble}': fusion is fitted for plain search; leave the step '{ensemble.steps[0]}' out")
    if ensemble is not None and ensemble.boxes != BoxSource(DEFAULT_BOXES):
        raise InputError(f"'{ensemble}': the boxes are what is fitted; name models alone, and fusions by --boxes")
    for source in wanted:
        if source.budget is not None:
            raise InputError(f"{source}: settings are fitted without a budget; name {source.name}, and --max-per-image")
        if source.fused is None:
            raise InputError(f"{source}: is no fusion; name WBF_1 to WBF_{len(PAPER_DETECTORS)} or WBF(DETECTOR,…)")
    _refuse_what_saw_the_photos(pipeline, wanted, ensemble)
    judges = [] if ensemble is None else [pipeline.retriever_to_run(one.model).identity for one in ensemble.members]
    fit_ids, report_ids = halves(split, pipeline.image_ids) if report_on_half else (pipeline.image_ids, None)
    names = list(dict.fromkeys(name for source in wanted for name in source.detectors))
    found = pipeline.detections_of(names)
    parts = {name: one.detections for name, one in found.items()}
    sizes = pipeline.photo_sizes()
    objectives = _objectives(pipeline, ensemble, [fit_ids, *([] if report_ids is None else [report_ids])], sizes)
    fits: dict[str, FusionFit] = {}
    advance = pipeline.report("fit fusion")
    for done, source in enumerate(wanted):

        def progress(trial: int, total: int, done: int = done) -> None:
            advance(done * num_trials + min(trial, num_trials), len(wanted) * num_trials)

        fits[source.name] = _fit(
            pipeline,
            source,
            [_of(parts[name], fit_ids) for name in source.detectors],
            sizes,
            objectives[0],
            fit_ids,
            [*(found[name].address for name in source.detectors), *judges],
            {
                "seed": seed,
                "num_trials": num_trials,
                "space": space,
                "boxes_per_photo": boxes_per_photo,
                "max_per_image": max_per_image,
                "progress": progress,
            },
        )
        if report_ids is not None:
            others = [_of(parts[name], report_ids) for name in source.detectors]
            fits[source.name].report.update(_reported(fits[source.name], others, sizes, objectives[1], report_ids))
        pipeline.work.keep_fusions({name: asdict(fit) for name, fit in fits.items()})
        advance((done + 1) * num_trials, len(wanted) * num_trials)
    return fits


def _every_fusion(pipeline: Pipeline) -> list[BoxSource]:
    ready = pipeline.work.trained("detector")
    members = list(takewhile(lambda name: name in ready, PAPER_DETECTORS)) or PAPER_DETECTORS[:1]
    return [BoxSource(f"WBF_{count}") for count in range(1, len(members) + 1)]


def _refuse_what_saw_the_photos(pipeline: Pipeline, sources: Sequence[BoxSource], ensemble: Ensemble | None) -> None:
    split, hold_out = pipeline.split, " --hold-out" if pipeline.split.name == "train" else ""
    cards = [
        ("detector", pipeline.work.model_card("detector", name))
        for name in dict.fromkeys(name for source in sources for name in source.detectors)
    ]
    if ensemble is not None:
        cards += [("retriever", pipeline.retriever_card(member.model)) for member in ensemble.members]
    for kind, card in cards:
        if card.saw_any(split.fingerprint, pipeline.image_ids, split.photos.image_ids):
            if card.is_entered:
                raise InputError(
                    f"{card.folder}: {card.name} was made elsewhere, by a model that saw the photos that fusion would "
                    f"be fitted on; enter one under another name that did not{_held_out(hold_out)}"
                )
            raise InputError(
                f"{card.folder}: {card.name} may have been trained on the photos that fusion would be fitted on; "
                f"train it without them: run.py train {kind} {card.name}{hold_out} --force"
            )


def _held_out(hold_out: str) -> str:
    return f" (if that is so of the held-out pairs, say it with --saw train{hold_out})" if hold_out else ""


def _objectives(
    pipeline: Pipeline,
    ensemble: Ensemble | None,
    parts: Sequence[Ints],
    sizes_wh: Mapping[int, tuple[int, int]],
) -> list[Objective]:
    """One a part of the photos."""
    from harness.jobs.objectives import BoxPrecision, CropFeatures, RetrievalAccuracy

    items = [annotated(pipeline.split, image_ids) for image_ids in parts]
    if ensemble is None:
        return [BoxPrecision(some, image_ids) for some, image_ids in zip(items, parts, strict=True)]

    embedders = [pipeline.retriever_to_run(one.model).load() for one in ensemble.members]
    name = str(ensemble).partition(" + ")[0]
    weights = [member.weight for member in ensemble.members]
    features = CropFeatures(embedders, pipeline.split, sizes_wh)
    return [RetrievalAccuracy(name, some, features, weights) for some in items]


def _fit(
    pipeline: Pipeline,
    source: BoxSource,
    detections: Sequence[Detections],
    sizes_wh: Mapping[int, tuple[int, int]],
    objective: Objective,
    image_ids: Ints,
    made_of: Sequence[str],
    options: dict[str, Any],
) -> FusionFit:
    """``made_of``: what the detectors' boxes and the models that judge them are addressed by."""
    from harness.detection.fusion_study import fit_fusion as study

    items = annotated(pipeline.split, image_ids)
    space = options["space"]
    kinds = [] if space is None else [kind for kind in space.calibrations if kind != "none"]
    facts = [source.name, objective.name, image_ids_sha256(image_ids), pipeline.split.fingerprint, *made_of]
    searched = {name: value for name, value in options.items() if name not in ("num_trials", "progress")}
    facts += [str(FUSE_VERSION), repr(searched)]
    digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    found = study(
        detections,
        sizes_wh,
        objective,
        calibrations={kind: _calibrations(kind, detections, items) for kind in kinds},
        storage=pipeline.work.root / STUDIES_FOLDER / f"fusion-{digest[:16]}.sqlite",
        **options,
    )
    return FusionFit(
        settings=found.settings.model_dump(mode="json"),
        objective=objective.name,
        value=found.value,
        member_values=dict(zip(source.detectors, found.member_values, strict=True)),
        num_trials=found.num_trials,
        num_photos=len(image_ids),
        fitted_on={
            "split": pipeline.split.name,
            "fingerprint": pipeline.split.fingerprint,
            "image_ids_sha256": image_ids_sha256(image_ids),
        },
        detectors={
            name: pipeline.work.model_card("detector", name).identity_on(pipeline.split.fingerprint)
            for name in source.detectors
        },
    )


def _calibrations(kind: str, detections: Sequence[Detections], items: Items) -> list[Calibration]:
    """One a detector, fitted to which of its boxes are hits."""
    from harness.detection.calibration import fit_isotonic, fit_temperature
    from harness.scoring.matching import hits

    fit = fit_isotonic if kind == "isotonic" else fit_temperature
    return [fit(one.scores, hits(items, one, _HIT_IOU)) for one in detections]


def _reported(
    fit: FusionFit,
    detections: Sequence[Detections],
    sizes_wh: Mapping[int, tuple[int, int]],
    objective: Objective,
    image_ids: Ints,
) -> dict[str, Any]:
    """The objective of photos that the search did not see."""
    from harness.detection.fusion import FusionSettings, fuse

    best = max(fit.member_values, key=lambda name: fit.member_values[name])
    alone = detections[list(fit.member_values).index(best)]
    plain = fuse(detections, sizes_wh, FusionSettings(max_per_image=fit.settings["max_per_image"]))
    fitted = fuse(detections, sizes_wh, FusionSettings(**fit.settings))
    told: dict[str, Any] = {
        "num_photos": len(image_ids),
        "best_member": best,
        "best_member_value": objective(alone),
        "defaults": objective(plain),
        "fitted": objective(fitted),
    }
    from harness.jobs.objectives import RetrievalAccuracy

    if isinstance(objective, RetrievalAccuracy):
        from harness.scoring.comparison import paired_comparison

        compared = paired_comparison(objective.score(plain), objective.score(fitted), 10, ("defaults", "fitted"))
        told |= {"num_queries": compared.num_queries, "interval": list(compared.interval), "p": compared.test.p_value}
    return told


def _of(detections: Detections, image_ids: Ints) -> Detections:
    return detections.take(np.isin(detections.image_ids, image_ids))
