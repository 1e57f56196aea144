"""What a row says beyond its score, held to an examination of the challenge JSON itself."""

import shlex
from pathlib import Path

import numpy as np
import pytest

from harness.data.deepfashion2 import read_split
from harness.jobs.evidence import hear
from harness.jobs.results import score
from harness.pipeline import Pipeline
from harness.scoring import slices
from harness.scoring.examination import examine
from harness.scoring.ledger import FATES, Fate, GalleryBoxes
from harness.scoring.results import Results
from harness.scoring.truth import read_truth
from harness.workplace import Workplace
from leaderboard.store import Board
from tests.commands import ok
from tests.jobs.entered_boxes import enter_d1


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "data"
    ok("data", "render", folder, "--train", 4, "--validation", 120, "--test", 4, "--workers", 1)
    return folder


@pytest.fixture(scope="module")
def work(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("its work")
    enter_d1(data, folder, (3, 12, 25))
    return folder


@pytest.fixture
def pipeline(data: Path, work: Path) -> Pipeline:
    return Pipeline(Workplace(work), read_split(data, "validation"))


def examined(pipeline: Pipeline, scored):
    boxes = scored.boxes.detections
    shop = boxes.take(~pipeline.split.photos.consumer_mask(boxes.image_ids))
    gallery_boxes = GalleryBoxes(shop.image_ids, np.round(shop.boxes_xyxy, 3))
    truth = read_truth(*pipeline.truth())
    return examine(Results.from_json(scored.submission), *truth, gallery_boxes=gallery_boxes)


def test_a_row_of_every_box_has_the_ledger_and_the_slices_of_its_file(pipeline: Pipeline) -> None:
    scored, row = score(pipeline, "histogram + d1", every_box=True)
    of_file = examined(pipeline, scored)
    assert row.losses.fates.tolist() == of_file.ledger.fates.tolist()
    assert row.losses.totals() == of_file.ledger.totals()
    assert row.losses.untold == ()
    assert sum(count > 0 for count in row.losses.totals().values()) >= 5  # nearly all fates occur in this world
    questions = Board(pipeline.work.board).questions(row.questions_id)
    assert slices.cut(questions, row.score.hit_ranks) == of_file.slices


def test_without_every_box_only_what_was_displaced_stands_elsewhere(pipeline: Pipeline) -> None:
    whole = score(pipeline, "histogram + d1", every_box=True)[1].losses.fates
    scored, row = score(pipeline, "histogram + d1")
    assert not scored.every_box
    assert row.losses.untold == ("displaced",)
    assert row.losses.totals()["displaced"] is None
    displaced = whole == FATES.index(Fate.DISPLACED)
    assert 0 < displaced.sum() < len(whole)
    assert (row.losses.fates[~displaced] == whole[~displaced]).all()
    assert (row.losses.fates[displaced] > FATES.index(Fate.DISPLACED)).all()
    assert len(hear(pipeline, scored).results) == scored.num_consumer_boxes > len(scored.ranking.query_rows)


def test_the_command_of_a_row_gives_the_row(pipeline: Pipeline) -> None:
    row = score(pipeline, "histogram + d1", every_box=True)[1]
    program, *words = shlex.split(row.command)
    assert program == "run.py"
    assert row.id[:12] in ok(*words)


def test_settings_name_what_departs_from_the_recipes(pipeline: Pipeline, data: Path, work: Path) -> None:
    assert score(pipeline, "histogram + d1")[1].settings == {}
    fusing = ("--fusion", "iou_threshold=0.6", "--fusion", "weights=[1]")
    ok("detect", "WBF(d1)", "--data", data, "--work", work, *fusing, "--keep")
    row = score(pipeline, "histogram + WBF(d1)")[1]
    assert row.settings == {"WBF(d1)": "iou_threshold 0.6, weights 1"}


def test_a_gallery_of_fewer_than_twenty_boxes(tmp_path: Path) -> None:
    ok("data", "render", tmp_path / "data", "--train", 4, "--validation", 20, "--test", 4, "--workers", 1)
    pipeline = Pipeline(Workplace(tmp_path / "work"), read_split(tmp_path / "data", "validation"))
    scored, row = score(pipeline, "histogram + GT", every_box=True)
    assert 0 < scored.ranking.gallery_rows_QK.shape[1] < 20
    assert row.losses.fates.tolist() == examined(pipeline, scored).ledger.fates.tolist()
