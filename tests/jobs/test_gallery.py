"""The gallery of a row, an ensemble and a result file, held to slow judgement box by box."""

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.deepfashion2 import read_split
from harness.jobs.gallery import of_file, of_row, of_spec, write_gallery
from harness.jobs.gallery_pictures import CROP_PX, PHOTO_PX, PictureBook
from harness.jobs.gallery_queries import MOST_COUNTERPARTS, NUM_ANSWERS, sample
from harness.jobs.results import score
from harness.pipeline import Pipeline
from harness.scoring.ledger import FATES, GalleryBoxes
from harness.scoring.overlap import iou
from harness.scoring.results import Results
from harness.types import InputError, Score
from harness.workplace import Workplace
from tests.commands import ok
from tests.jobs.entered_boxes import enter_d1

SPEC = "histogram + d1"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "data"
    ok("data", "render", folder, "--train", 4, "--validation", 120, "--test", 4, "--workers", 1)
    return folder


@pytest.fixture(scope="module")
def work(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("its work")
    enter_d1(data, folder, (3, 25))
    return folder


@pytest.fixture
def pipeline(data: Path, work: Path) -> Pipeline:
    return Pipeline(Workplace(work), read_split(data, "validation"))


@pytest.fixture(scope="module")
def scored(data: Path, work: Path):
    return score(Pipeline(Workplace(work), read_split(data, "validation")), SPEC, every_box=True)


def answers_by_hand(shown, results: Results, split) -> int:
    """Judge every shown answer by the annotations themselves; how many there were of each verdict."""
    items, verdicts = split.items, Counter()
    for query in shown.queries:
        matching = np.flatnonzero(
            ~items.is_consumer & (items.pair_ids == query.pair_id) & (items.styles == query.style)
        )
        assert query.num_counterparts == len(matching)
        assert len(query.counterparts) == min(len(matching), MOST_COUNTERPARTS)
        assert {item.image_id for item in query.counterparts} <= set(items.image_ids[matching].tolist())
        if query.speaking_xyxy is None:
            assert not query.answers
            continue
        (row,) = np.flatnonzero(
            (results.image_ids == query.image_id)
            & (results.boxes_xyxy == query.speaking_xyxy).all(1)
            & (results.scores == query.score)
        )
        assert [one.image_id for one in query.answers] == results.gallery_image_ids_RK[row, :NUM_ANSWERS].tolist()
        for place, answer in enumerate(query.answers):
            same_photo = matching[items.image_ids[matching] == answer.image_id]
            box = results.gallery_boxes_xyxy_RK4[row, place]
            near = [float(iou(box[None], items.boxes_xyxy[one][None])[0]) >= 0.5 for one in same_photo]
            assert answer.verdict == ("right" if any(near) else "wrong box" if len(same_photo) else "wrong")
            verdicts[answer.verdict] += 1
        ranks = [place for place, answer in enumerate(query.answers, 1) if answer.verdict == "right"]
        if query.rank is None or query.rank > NUM_ANSWERS:
            assert not ranks
        else:
            assert ranks[0] == query.rank
        if query.rank is not None and len(matching) <= MOST_COUNTERPARTS:
            assert min(item.rank for item in query.counterparts if item.rank is not None) == query.rank
    return verdicts


def test_a_rows_gallery_says_what_the_row_says(pipeline: Pipeline, scored) -> None:
    result, row = scored
    shown = of_row(pipeline, row, num_queries=10_000)
    assert [query.number for query in shown.queries] == list(range(row.score.num_queries))
    assert [query.rank or 0 for query in shown.queries] == row.score.hit_ranks.tolist()
    assert [query.fate for query in shown.queries] == [str(FATES[fate]) for fate in row.losses.fates]
    assert shown.totals == row.losses.totals()
    assert (shown.name, shown.source, shown.rendered, shown.acc10) == (row.name, row.spec, True, row.score.acc[10])
    verdicts = answers_by_hand(shown, Results.from_json(result.submission), pipeline.split)
    assert min(verdicts["right"], verdicts["wrong"], verdicts["wrong box"]) > 0
    similarities = [answer.similarity for query in shown.queries for answer in query.answers]
    assert all(0 <= one <= 1.001 for one in similarities)
    assert all(
        query.answers[place].similarity >= query.answers[place + 1].similarity
        for query in shown.queries if query.answers for place in range(NUM_ANSWERS - 1)
    )  # fmt: skip
    # Told by the boxes that were searched.
    detected = {item.is_detected for query in shown.queries for item in query.counterparts}
    assert detected == {True, False}
    lost = [query for query in shown.queries if query.fate == "not in gallery"]
    assert lost
    assert not any(item.is_detected for query in lost for item in query.counterparts)


def test_a_file_says_the_same_as_the_row(pipeline: Pipeline, scored, data: Path) -> None:
    result, row = scored
    query, gallery = pipeline.truth()
    shown = of_file(result.submission, query, gallery, data, num_queries=10_000)
    assert [one.rank or 0 for one in shown.queries] == row.score.hit_ranks.tolist()
    assert shown.totals["not in gallery"] is None
    assert shown.rendered
    assert all(answer.similarity is None for one in shown.queries for answer in one.answers)
    assert all(item.is_detected is None for one in shown.queries for item in one.counterparts)
    answers_by_hand(shown, Results.from_json(result.submission), pipeline.split)
    boxes = result.boxes.detections
    shop = boxes.take(~pipeline.split.photos.consumer_mask(boxes.image_ids))
    searched = GalleryBoxes(shop.image_ids, np.round(shop.boxes_xyxy, 3))
    told = of_file(result.submission, query, gallery, data, searched=searched, num_queries=10_000)
    assert told.totals == row.losses.totals()


def test_of_a_spec_what_was_displaced_cannot_be_told(pipeline: Pipeline, scored) -> None:
    shown = of_spec(pipeline, SPEC, num_queries=5)
    assert (shown.name, shown.row, len(shown.queries)) == (SPEC, None, 5)
    assert shown.totals["displaced"] is None
    assert shown.acc10 == scored[1].score.acc[10]


def test_every_picture_is_there_once_and_small(pipeline: Pipeline, scored) -> None:
    shown = of_row(pipeline, scored[1], num_queries=40)
    used = {query.photo for query in shown.queries} | {query.crop for query in shown.queries if query.crop is not None}
    used |= {answer.picture for query in shown.queries for answer in query.answers}
    used |= {item.picture for query in shown.queries for item in query.counterparts}
    assert used == set(range(len(shown.pictures)))
    for query in shown.queries:
        photo = shown.pictures[query.photo]
        assert max(photo.size_wh) <= PHOTO_PX
        assert photo.photo == f"{query.image_id:06d}.jpg"
        assert query.box_xyxy[2] <= photo.of_wh[0] + 1
        if query.crop is not None:
            crop = shown.pictures[query.crop]
            pixels = cv2.imdecode(np.frombuffer(crop.data, np.uint8), cv2.IMREAD_COLOR)
            assert (pixels.shape[1], pixels.shape[0]) == crop.size_wh
            assert max(crop.size_wh) <= CROP_PX


def test_colours_and_places_are_those_of_the_photo(tmp_path: Path) -> None:
    photo = np.zeros((400, 300, 3), np.uint8)
    photo[100:300, 50:150] = (0, 0, 255)  # red, as OpenCV has it
    cv2.imwrite(str(tmp_path / "000007.jpg"), photo)
    book = PictureBook(lambda image_id: tmp_path / f"{image_id:06d}.jpg")
    places = [book.crop(7, np.array(box)) for box in ([50.0, 100, 150, 300], [150.0, 300, 50, 100], [0.0, 0, 40, 40])]
    assert places == [0, 0, 1]
    assert book.photo(7) == 2
    red, black, whole = book.make()
    assert (red.size_wh, red.of_wh) == ((CROP_PX // 2, CROP_PX), (100, 200))
    assert (black.size_wh, black.of_wh) == ((40, 40), (40, 40))  # never enlarged
    assert (whole.size_wh, whole.of_wh) == ((150, 200), (300, 400))
    middle = cv2.imdecode(np.frombuffer(red.data, np.uint8), cv2.IMREAD_COLOR)[52, 26]
    assert middle[2] > 200
    assert middle[0] < 60


def test_a_photo_that_cannot_be_read_is_a_placeholder(data: Path, pipeline: Pipeline, scored, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    result, _ = scored
    query, gallery = pipeline.truth()
    whole = of_file(result.submission, query, gallery, copy, num_queries=3)
    gone, broken = whole.queries[0].image_id, whole.queries[1].answers[0].image_id
    (copy / "validation" / "image" / f"{gone:06d}.jpg").unlink()
    (copy / "validation" / "image" / f"{broken:06d}.jpg").write_bytes(b"no photo")
    shown = of_file(result.submission, query, gallery, copy, num_queries=3)
    placeholders = {picture.photo for picture in shown.pictures if picture.data is None}
    assert placeholders == {f"{gone:06d}.jpg", f"{broken:06d}.jpg"}
    assert shown.queries == whole.queries


def test_a_row_of_other_data_or_of_other_models_is_refused(pipeline: Pipeline, scored) -> None:
    row = scored[1]
    with pytest.raises(InputError, match="is not the data of row"):
        of_row(pipeline, replace(row, fingerprint="0" * 64))
    with pytest.raises(InputError, match="strict protocol"):
        of_row(pipeline, replace(row, score=Score("strict", row.score.num_queries, row.score.hit_ranks)))
    ranks = row.score.hit_ranks.copy()
    ranks[3] = 20 if ranks[3] != 20 else 19
    with pytest.raises(InputError, match=f"{row.score.num_queries - 1} of {row.score.num_queries} queries"):
        of_row(pipeline, replace(row, score=Score("official", len(ranks), ranks)))


def test_one_command_takes_a_row_a_spec_or_a_file(pipeline: Pipeline, scored, data: Path, tmp_path: Path) -> None:
    result, row = scored
    work = pipeline.work
    page = write_gallery(row.id[:8], data, work, num_queries=3)
    assert page == work.root / "leaderboard" / "gallery" / f"{row.id[:16]}.html"
    assert f'href="../rows/{row.id[:16]}.html"' in page.read_text()
    elsewhere = write_gallery(row.id[:8].upper(), data, work, num_queries=3, out=tmp_path / "x" / "page.html")
    assert elsewhere == tmp_path / "x" / "page.html"
    assert "href=" not in re.sub('href="#queries"', "", elsewhere.read_text())
    assert write_gallery(SPEC, data, work, num_queries=3) == work.root / "gallery.html"
    query, gallery = pipeline.truth()
    mine = shutil.copy(result.submission, tmp_path / "mine.json")
    found = write_gallery(str(mine), data, work, query=query, gallery=gallery, num_queries=3)
    assert found == tmp_path / "mine-gallery.html"
    text = found.read_text()
    assert "RENDERED" in text
    inside = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert len(inside["queries"]) == 3


def test_what_cannot_be_shown_is_refused(pipeline: Pipeline, scored, data: Path, tmp_path: Path) -> None:
    work, query = pipeline.work, pipeline.truth()[0]
    with pytest.raises(InputError, match="at least 1, got 0"):
        write_gallery(SPEC, data, work, num_queries=0)
    with pytest.raises(InputError, match="give both --query"):
        write_gallery(str(tmp_path / "none.json"), data, work)
    with pytest.raises(InputError, match="give both --query"):
        write_gallery(SPEC, data, work, query=query)
    with pytest.raises(InputError, match="0 rows have an id"):
        write_gallery("0000000", data, work)
    with pytest.raises(InputError, match="no such folder"):
        of_file(scored[0].submission, *pipeline.truth(), tmp_path)
    with pytest.raises(InputError, match="has no annotations"):
        of_spec(Pipeline(work, read_split(data, "test")), SPEC)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=300), st.integers(1, 320))
def test_a_sample_is_even_over_the_fates(fates: list[int], wanted: int) -> None:
    column = np.array(fates)
    chosen = sample(column, wanted)
    assert len(chosen) == min(wanted, len(fates))
    assert (np.diff(chosen) > 0).all()
    assert set(chosen.tolist()) <= set(range(len(fates)))
    totals, taken = Counter(fates), Counter(column[chosen].tolist())
    if len(fates) > wanted:
        # Whoever has queries left over has as many shown as any other, but for the remainder.
        largest = max(taken.values())
        assert all(taken[fate] >= largest - 1 for fate, total in totals.items() if taken[fate] < total)
    assert (sample(column, wanted) == chosen).all()
