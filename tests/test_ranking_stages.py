"""Search and post-processing as stages: only what counts, steps in their order, answers of one category."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from harness.box_stages import BoxSet
from harness.data.deepfashion2 import read_split
from harness.data.exports import write_coco_results
from harness.jobs.results import score
from harness.jobs.step_gains import step_gains
from harness.pipeline import Pipeline
from harness.spec import BoxSource
from harness.timing import Stopwatch
from harness.types import Detections
from harness.workplace import Workplace
from tests.commands import call, ok, refused

STEPS = [
    "",
    " | qe(3)",
    " | dba(3,weights=rank) | qe(2,alpha=3)",
    " | pca(16) | whiten(8)",
    " | same_category",
    " | whiten(6,fit=train)",
    " | whiten(fit=split,shrinkage=0.5)",
    " | rerank(k1=8,k2=3,lambda=0.3)",
    " | qe(2) | rerank(k1=8) | same_category",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "data"
    ok("data", "render", folder, "--train", 60, "--validation", 90, "--test", 8, "--workers", 1)
    return folder


def jittered(split, copies: int = 3) -> Detections:
    """Boxes as a detector might find them: several on each garment, some of another category, at odd places."""
    rng = np.random.default_rng(5)
    truth = split.items.as_detections()
    parts = []
    for _ in range(copies):
        corners = truth.boxes_xyxy + rng.normal(0, 6, truth.boxes_xyxy.shape)
        corners = np.concatenate(
            [np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:]) + 2], 1
        )
        other = rng.random(len(truth)) < 0.2
        categories = np.where(other, rng.integers(1, 14, len(truth)), truth.category_ids)
        parts.append(Detections(truth.image_ids, np.maximum(corners, 0), rng.random(len(truth)), categories))
    found = Detections.concatenate(parts)
    return found.take(np.lexsort((-found.scores, found.image_ids)))


@pytest.fixture(scope="module")
def work(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models on detected boxes that no network has made: a histogram, and entered vectors."""
    folder = tmp_path_factory.mktemp("work")
    rng = np.random.default_rng(2)
    for name in ("validation", "train"):
        split = read_split(data, name)
        for boxes in (split.items.as_detections(), jittered(split)):
            np.save(folder / "m18.npy", rng.normal(size=(len(boxes), 12)).astype(np.float32))
            write_coco_results(folder / "boxes.json", boxes)
            ok("enter", "embeddings", "m18", "--vectors", folder / "m18.npy", "--boxes", folder / "boxes.json",
               "--data", data, "--work", folder, "--split", name)  # fmt: skip
    return folder


@pytest.fixture
def pipeline(data: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Over validation, with `jittered` boxes as those of ATSS."""
    split = read_split(data, "validation")
    boxes, truth = BoxSet(jittered(split), "made up", "ATSS"), Pipeline.boxes
    monkeypatch.setattr(Pipeline, "boxes", lambda self, source: boxes if source.name == "ATSS" else truth(self, source))
    monkeypatch.setattr(Pipeline, "members", lambda self, ensemble: [])
    return Pipeline(Workplace(work), split)


@pytest.mark.parametrize("steps", STEPS)
def test_only_the_boxes_that_count_give_the_same_score(pipeline: Pipeline, steps: str) -> None:
    spec = f"histogram*2,m18 + ATSS{steps}"
    every, counting = pipeline.run(spec), pipeline.run(spec, every_box=False)
    assert every.every_box
    assert not counting.every_box
    assert counting.score.num_queries < len(counting.boxes.detections)
    assert len(counting.ranking.query_rows) < len(every.ranking.query_rows) / 2
    assert counting.score.hit_ranks.tolist() == every.score.hit_ranks.tolist()
    assert 0 < counting.score.acc[10] < 1
    places = np.searchsorted(every.ranking.query_rows, counting.ranking.query_rows)
    assert (every.ranking.gallery_rows_QK[places] == counting.ranking.gallery_rows_QK).all()


def test_a_box_that_does_not_speak_changes_nothing_and_one_that_does_is_among_those_searched(
    pipeline: Pipeline,
) -> None:
    counting = pipeline.run("histogram + ATSS", every_box=False)
    rows = json.loads(counting.submission.read_text())
    boxes = counting.boxes.detections.take(counting.ranking.query_rows)
    assert [row["query_image_id"] for row in rows] == boxes.image_ids.tolist()
    is_consumer = pipeline.split.photos.consumer_mask(counting.boxes.detections.image_ids)
    truth = pipeline.split.items
    asked = truth.take(truth.is_consumer & (truth.styles > 0))
    assert len(rows) <= len(asked) < is_consumer.sum()
    assert set(boxes.image_ids.tolist()) <= set(asked.image_ids.tolist())


def joined(pipeline: Pipeline, boxes: BoxSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The weighted concatenation in float64, rows that ask, and rows that answer."""
    features, _ = pipeline.embeddings(["histogram", "m18"], boxes)
    parts = [np.sqrt(weight) * features[name].vectors_ND.astype(float) for name, weight in
             (("histogram", 2), ("m18", 1))]  # fmt: skip
    is_consumer = pipeline.split.photos.consumer_mask(boxes.detections.image_ids)
    return np.concatenate(parts, axis=1), np.flatnonzero(is_consumer), np.flatnonzero(~is_consumer)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_steps_act_in_their_order(pipeline: Pipeline) -> None:
    boxes = pipeline.boxes(BoxSource("ATSS"))
    rows, asking, answering = joined(pipeline, boxes)
    queries, gallery = unit(rows[asking]), unit(rows[answering])
    sims = gallery @ gallery.T
    np.fill_diagonal(sims, -np.inf)
    near = np.argsort(-sims, axis=1, kind="stable")[:, :3]
    gallery = unit(gallery + gallery[near].sum(axis=1))  # dba(3), plain
    near = np.argsort(-(queries @ gallery.T), axis=1, kind="stable")[:, :2]
    queries = unit(queries + gallery[near].sum(axis=1))  # qe(2), of rows that were augmented before
    expected = -np.sort(-(queries @ gallery.T), axis=1)[:, :20]
    ranking, addresses = pipeline.rank(pipeline.parse("histogram*2,m18 + ATSS | dba(3) | qe(2)"), boxes)
    np.testing.assert_allclose(ranking.similarities_QK / 3, expected, atol=2e-3)  # float16 rows
    found = np.take_along_axis(queries @ gallery.T, np.searchsorted(answering, ranking.gallery_rows_QK), axis=1)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert {"step 1, dba(3)", "step 2, qe(2)", "search"} <= set(addresses)
    other, _ = pipeline.rank(pipeline.parse("histogram*2,m18 + ATSS | qe(2) | dba(3)"), boxes)
    assert (other.gallery_rows_QK != ranking.gallery_rows_QK).any()


def test_answers_of_the_querys_category_come_first(pipeline: Pipeline) -> None:
    boxes = pipeline.boxes(BoxSource("ATSS"))
    plain, _ = pipeline.rank(pipeline.parse("histogram + ATSS"), boxes)
    ranking, _ = pipeline.rank(pipeline.parse("histogram + ATSS | same_category"), boxes)
    categories = boxes.detections.category_ids
    same = categories[ranking.gallery_rows_QK] == categories[ranking.query_rows][:, None]
    assert (np.diff(same.astype(int), axis=1) <= 0).all()
    available = np.bincount(categories[~pipeline.split.photos.consumer_mask(boxes.detections.image_ids)], minlength=14)
    assert (same.sum(axis=1) == np.minimum(20, available[categories[ranking.query_rows]])).all()
    mixed = categories[plain.gallery_rows_QK] == categories[plain.query_rows][:, None]
    assert (mixed.sum(axis=1) < same.sum(axis=1)).any()


def test_the_store_answers_the_second_time(pipeline: Pipeline) -> None:
    spec = "histogram,m18 + ATSS | dba(2) | pca(8) | rerank(k1=5)"
    first = pipeline.run(spec)
    pipeline.stopwatch = Stopwatch()
    again = pipeline.run(spec)
    assert all(stage.from_store for stage in again.stages if stage.stage != "score")
    assert again.submission.read_bytes() == first.submission.read_bytes()
    assert again.artifacts == first.artifacts
    # Where a projection is fitted is part of its address.
    addresses = {
        pipeline.run(f"m18 + ATSS | pca(4,fit={fit})").artifacts["search"] for fit in ("gallery", "split", "train")
    }
    assert len(addresses) == 3


def test_every_step_is_told_against_the_one_before(pipeline: Pipeline) -> None:
    scored = pipeline.run("histogram,m18 + ATSS | dba(2) | same_category", every_box=False)
    gains = step_gains(pipeline, scored)
    assert [gain.step for gain in gains] == ["search", "dba(2)", "same_category"]
    assert gains[-1].score is scored.score
    for count, gain in enumerate(gains):
        spec = "histogram,m18 + ATSS" + "".join(f" | {one.step}" for one in gains[1 : count + 1])
        assert pipeline.run(spec).score.hit_ranks.tolist() == gain.score.hit_ranks.tolist()
    for before, gain in pairwise(gains):
        assert gain.against_before.difference == gain.score.acc[10] - before.score.acc[10]
    assert gains[0].against_before is None
    assert step_gains(pipeline, pipeline.run("histogram + ATSS")) == []


def test_a_row_is_hedged_by_all_boxes_not_only_by_those_that_speak(pipeline: Pipeline, monkeypatch) -> None:
    """Of thirteen equal boxes on a garment, one speaks; the row has to say that there were thirteen."""
    truth = pipeline.split.items.as_detections()
    every = [Detections(truth.image_ids, truth.boxes_xyxy, truth.scores, np.full(len(truth), c)) for c in range(1, 14)]
    boxes = Detections.concatenate(every)
    boxes = boxes.take(np.argsort(boxes.image_ids, kind="stable"))
    monkeypatch.setattr(Pipeline, "boxes", lambda self, source: BoxSet(boxes, "hedged", "ATSS"))
    _, row = score(pipeline, "histogram + ATSS")
    assert row.hedged


def test_score_tells_the_gain_of_each_step(data: Path, work: Path) -> None:
    arguments = ("score", "histogram + GT | qe(3,alpha=3) | rerank(k1=10)", "--data", data, "--work", work)
    told = json.loads(ok(*arguments, "--json"))
    assert [step["step"] for step in told["steps"]] == ["search", "qe(3,alpha=3)", "rerank(k1=10,k2=6,lambda=0.3)"]
    assert told["steps"][-1]["acc"] == told["acc"]
    assert told["every_box"] is False
    shown = ok(*arguments)
    assert "RENDERED" in shown
    assert "| qe(3,alpha=3)" in shown
    assert "--every-box" in shown
    assert "run.py evaluate" in ok(*arguments, "--every-box")


def test_a_projection_that_has_too_few_rows_is_refused(data: Path, work: Path) -> None:
    assert "5000" in refused("score", "histogram + GT | pca(5000)", "--data", data, "--work", work)


def test_weights_that_were_fitted_on_the_split_are_marked(pipeline: Pipeline) -> None:
    spec = str(pipeline.parse("histogram,m18*0.4 + ATSS"))
    for fingerprint, says in (("elsewhere", None), (pipeline.split.fingerprint, "weights fitted on validation")):
        pipeline.work.keep_selection(spec, {"split": "validation", "fingerprint": fingerprint})
        assert score(pipeline, f"{spec} | qe(2)")[1].contamination == says
        # The same weights in other numbers, and with other boxes, were fitted on these photos as well.
        for same in ("histogram*2,m18*0.8 + ATSS", "histogram,m18*0.4 + GT"):
            assert score(pipeline, same)[1].contamination == says
        assert score(pipeline, "histogram,m18*0.5 + ATSS")[1].contamination is None
    # Models that were chosen with equal weights are what anybody chooses who looks at the board: told, but ranked.
    pipeline.work.keep_selection(
        str(pipeline.parse("histogram,m18 + ATSS")), {"fingerprint": pipeline.split.fingerprint}
    )
    _, row = score(pipeline, "histogram,m18 + ATSS")
    assert row.contamination is None
    assert "models chosen on a half of validation" in row.artifacts


@pytest.mark.parametrize("gigabytes", ["inf", "nan", "0", "-1", "1e7", "much"])
def test_memory_is_a_number_of_gigabytes(data: Path, work: Path, gigabytes: str) -> None:
    done = call("score", "histogram + GT", "--data", data, "--work", work, "--memory", gigabytes)
    assert done.exit_code == 2, done.output
    assert "--memory" in done.output
