"""What boxes are worth: the short way must give what the whole pipeline gives."""

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.data.deepfashion2 import read_split
from harness.jobs.objectives import BoxPrecision, CropFeatures, RetrievalAccuracy
from harness.pipeline import Pipeline
from harness.ranking.search import nearest
from harness.retrieval.embedding import embed
from harness.retrieval.histogram import ColourHistogram
from harness.scoring.official import evaluate
from harness.scoring.results import Results
from harness.scoring.truth import truth_from_items
from harness.types import Detections, InputError, Ranking, Split
from harness.workplace import Workplace
from run import app


class Counting(ColourHistogram):
    """A histogram that counts the crops it has seen."""

    seen = 0

    def embed(self, crops_BHW3):
        self.seen += len(crops_BHW3)
        return super().embed(crops_BHW3)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder = tmp_path_factory.mktemp("rendered") / "data"
    arguments = ["data", "render", folder, "--train", 20, "--validation", 60, "--test", 10, "--workers", 1]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return read_split(folder, "validation")


@pytest.fixture(scope="module")
def sizes(split: Split, tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[int, int]]:
    return Pipeline(Workplace(tmp_path_factory.mktemp("work")), split).photo_sizes()


def guesses(split: Split, seed: int, copies: int = 2) -> Detections:
    """Every garment found some times, roughly, sometimes under another category."""
    rng = np.random.default_rng(seed)
    assert split.items is not None
    rows = np.repeat(np.arange(len(split.items)), copies)
    boxes = split.items.boxes_xyxy[rows]
    boxes = boxes + rng.normal(0, 2, boxes.shape)
    corners = np.sort(boxes.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    categories = np.where(rng.random(len(rows)) < 0.3, rng.integers(1, 14, len(rows)), split.items.category_ids[rows])
    scores = np.round(rng.random(len(rows)), 1)  # many ties
    return Detections(split.items.image_ids[rows], np.maximum(corners, 0), scores, categories)


def the_long_way(split: Split, boxes: Detections) -> float:
    """Every box embedded, every consumer box searched."""
    features = embed([ColourHistogram()], split, boxes)["histogram"]
    consumer = split.photos.consumer_mask(boxes.image_ids)
    queries, gallery = np.flatnonzero(consumer), np.flatnonzero(~consumer)
    ids, similarities = nearest([features[queries]], [features[gallery]], 20)
    results = Results.from_ranking(Ranking(queries, gallery[ids], similarities), boxes)
    assert split.items is not None
    return evaluate(results, *truth_from_items(split.items)).acc[10]


def test_only_what_counts_is_embedded_and_nothing_twice(split: Split, sizes: dict[int, tuple[int, int]]) -> None:
    counting = Counting()
    objective = RetrievalAccuracy("histogram", split.items, CropFeatures([counting], split, sizes), [1.0])
    boxes = guesses(split, 0)
    value = objective(boxes)
    assert value == the_long_way(split, boxes)
    assert 0.05 < value < 1
    assert objective.name == "Acc@10 of histogram"
    first = counting.seen
    num_shop = int((~split.photos.consumer_mask(boxes.image_ids)).sum())
    num_queries = int((truth_from_items(split.items)[0].styles > 0).sum())
    assert num_shop / 2 < first <= num_shop + num_queries < len(boxes)
    assert objective(boxes) == value
    assert counting.seen == first
    others = guesses(split, 1)
    assert objective(others) == the_long_way(split, others)
    assert counting.seen > first


def test_features_are_those_of_embed_even_when_the_cache_was_emptied(
    split: Split, sizes: dict[int, tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = guesses(split, 2, copies=1)
    expected = embed([ColourHistogram()], split, boxes)["histogram"]
    features = CropFeatures([ColourHistogram()], split, sizes)
    half = len(boxes) // 2
    monkeypatch.setattr("harness.jobs.objectives._MOST_CROPS", len(boxes) - 1)
    first = features(boxes.take(slice(0, half)))[0]
    second = features(boxes.take(slice(half, None)))[0]
    assert np.array_equal(np.concatenate([first, second]), expected)
    assert np.array_equal(features(boxes.take(slice(0, half)))[0], first)


def test_too_few_gallery_boxes_and_other_photos(split: Split, sizes: dict[int, tuple[int, int]]) -> None:
    consumer = split.photos.consumer_mask(split.items.image_ids)
    objective = RetrievalAccuracy("histogram", split.items, CropFeatures([ColourHistogram()], split, sizes), [1.0])
    boxes = guesses(split, 0)
    few = np.flatnonzero(~split.photos.consumer_mask(boxes.image_ids))[:19]
    queries = np.flatnonzero(split.photos.consumer_mask(boxes.image_ids))
    assert objective(boxes.take(np.concatenate([queries, few]))) == 0
    # Without any query box there is no hit, and no crash.
    assert objective(boxes.take(~split.photos.consumer_mask(boxes.image_ids))) == 0
    with pytest.raises(InputError, match="no row has a style > 0"):
        RetrievalAccuracy("histogram", split.items.take(~consumer), CropFeatures([], split, sizes), [1.0])
    precision = BoxPrecision(split.items.take(consumer), np.unique(split.items.image_ids[consumer]))
    alone = boxes.take(split.photos.consumer_mask(boxes.image_ids))
    assert precision(boxes) == precision(alone) > 0
