"""The paper's tables beside rows of the board and settings of the recipes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.jobs.settings_table import in_words, table_4
from harness.retrieval.recipes import find_recipe
from leaderboard.published import published
from tests.commands import ok, refused


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "data"
    ok("data", "render", folder, "--train", 10, "--validation", 40, "--test", 4)
    return folder


def table_3(data: Path, work: Path, *more: str) -> dict[str, Any]:
    shown = json.loads(ok("tables", "--data", data, "--work", work, "--json", *more))
    assert [table["number"] for table in shown["tables"]] == [1, 2, 3, 4, 5, 6, 7, 8]
    found: dict[str, Any] = shown["tables"][2]
    return found


def enter(name: str, work: Path, *more: object) -> None:
    options = ("--timm", "resnet10t", "--init-from", "none", "--input", "32x32", "--work", work)
    ok("enter", "encoder", name, *options, *more)


def test_table_3_has_every_model_by_itself_on_ground_truth_boxes(data: Path, tmp_path: Path):
    enter("ours", tmp_path)
    blank = table_3(data, tmp_path)
    assert [row[0] for row in blank["rows"]] == [f"m{number}" for number in range(18)]
    assert all(row[3:] == [None, None] for row in blank["rows"])
    # Nothing is run unless it is asked for.
    assert not (tmp_path / "leaderboard.sqlite").exists()
    asked = table_3(data, tmp_path, "--run")
    row = asked["rows"][-1]
    assert row[:3] == ["ours", None, None]
    assert 0 <= row[3] <= 1
    assert [column["kind"] for column in asked["columns"]] == ["label", "label", "published", "measured", "reproduced"]
    assert row[4] is None, "rendered data is never judged"
    assert any("RENDERED" in note for note in asked["notes"])
    assert not any("RENDERED" in note for note in blank["notes"]), "nothing was measured"
    assert "RENDERED" in asked["columns"][3]["heading"]
    # A row that is there is taken as it is; with weights, or several models, it is no row of Table 3.
    ok("score", "histogram + GT", "--data", data, "--work", tmp_path)
    ok("score", "ours*2,histogram + GT", "--data", data, "--work", tmp_path)
    again = table_3(data, tmp_path, "--run")
    assert [row[0] for row in again["rows"][18:]] == ["ours", "histogram"]
    assert again["rows"][18] == row
    # Of a model that is another one now, the row is history.
    enter("ours", tmp_path, "--margin", 0.2, "--force")
    assert [row[0] for row in table_3(data, tmp_path)["rows"][18:]] == ["histogram"]
    shutil.rmtree(tmp_path / "models" / "retrievers" / "ours")
    assert [row[0] for row in table_3(data, tmp_path)["rows"][18:]] == ["histogram"]


def test_a_model_that_saw_the_split_has_no_figure_but_a_note(data: Path, tmp_path: Path):
    enter("ours", tmp_path)
    card_path = tmp_path / "models" / "retrievers" / "ours" / "card.json"
    card = json.loads(card_path.read_bytes())
    from harness.data.deepfashion2 import read_split
    from harness.training.cards import TrainedOn

    split = read_split(data, "validation")
    card["trained_on"] = [TrainedOn.of(split, split.photos.image_ids).model_dump()]
    card_path.write_text(json.dumps(card))
    found = table_3(data, tmp_path, "--run")
    assert "ours has a row that is ranked apart: trained on validation: ours." in found["notes"]
    assert [row[0] for row in found["rows"][18:]] == []
    # The row is there: asked again, nothing is scored again.
    before = (tmp_path / "leaderboard.sqlite").read_bytes()
    assert table_3(data, tmp_path, "--run") == found
    assert (tmp_path / "leaderboard.sqlite").read_bytes() == before


def test_tables_6_and_7_have_the_rows_whose_models_are_here(data: Path, tmp_path: Path) -> None:
    """The paper's five detectors are boxes that were entered, m4 a network that has learned nothing."""
    from harness.data.deepfashion2 import read_split
    from harness.data.exports import write_coco_results
    from harness.spec import PAPER_DETECTORS

    boxes = read_split(data, "validation").items.as_detections()
    write_coco_results(tmp_path / "boxes.json", boxes)
    ok("enter", "detections", "d6", "--boxes", tmp_path / "boxes.json", "--data", data, "--work", tmp_path)
    detectors = tmp_path / "models" / "detectors"
    card = (detectors / "d6" / "card.json").read_text()
    for name in PAPER_DETECTORS:
        shutil.copytree(detectors / "d6", detectors / name)
        (detectors / name / "card.json").write_text(card.replace('"d6"', f'"{name}"'))
    enter("m18", tmp_path)
    model = (tmp_path / "models" / "retrievers" / "m18").rename(tmp_path / "models" / "retrievers" / "m4")
    (model / "card.json").write_text((model / "card.json").read_text().replace('"m18"', '"m4"'))
    arguments = ("tables", "--run", "--data", data, "--work", tmp_path, "--json")
    tables = {table["number"]: table for table in json.loads(ok(*arguments))["tables"]}
    measured = {column["heading"]: place for place, column in enumerate(tables[6]["columns"])
                if column["kind"] == "measured"}  # fmt: skip
    (place,) = measured.values()
    assert tables[6]["columns"][place]["heading"].startswith("validation Acc@10 measured on RENDERED data")
    rows = {row[0]: row[place] for row in tables[6]["rows"]}
    assert [name for name, value in rows.items() if value is not None] == ["m4"]
    assert len(rows) == 8
    (*_, acc_1, _, _, acc_10, _) = zip(*tables[7]["rows"], strict=True)
    assert all(0 <= value <= 1 for value in (*acc_1, *acc_10)), "three rows, each measured"
    assert acc_10[0] == acc_10[1] == rows["m4"], "there are fewer boxes than the budget"
    (note,) = (note for note in tables[7]["notes"] if "126,000" in note)
    assert note == f"Ours has {len(boxes):,} boxes of WBF_5 in all, so a budget of 126,000 takes none away."
    assert json.loads(ok(*arguments))["tables"][6] == tables[7], "nothing is scored again"


def test_entered_test_scores_stand_in_tables_6_and_8(data: Path, tmp_path: Path):
    from leaderboard.entered import EnteredScore
    from leaderboard.store import Board

    board = Board(tmp_path / "leaderboard.sqlite")
    told = {"split": "test", "source": "the server"}
    board.enter(EnteredScore("m1-16 + WBF_5", "ours", acc={10: 0.8500}, **told))
    board.enter(EnteredScore("m1-16 with WBF_5", "again", acc={10: 0.8561}, **told))
    board.enter(EnteredScore("m4 + WBF_5", "drawn", acc={10: 0.5}, rendered=True, **told))
    board.enter(EnteredScore("m4 + WBF_4", "another", acc={10: 0.6}, **told))
    board.close()
    shown = json.loads(ok("tables", "--data", data, "--work", tmp_path, "--json"))["tables"]
    tables = {table["number"]: table for table in shown}
    filled = [row for row in tables[6]["rows"] if row[5] is not None]
    assert [(row[0], row[5], row[6]) for row in filled] == [("m1-16", 0.8561, "yes")]
    assert "Test scores were told by: m1-16: the server." in tables[6]["notes"]
    assert [row[2:] for row in tables[8]["rows"][6:]] == [
        ["again", None, 0.8561, "the server"],
        ["ours", None, 0.85, "the server"],
        ["another", None, 0.6, "the server"],
    ]


@pytest.mark.parametrize(
    ("split", "photos", "said"),
    [
        ("validation", 32153, None),
        (
            "validation",
            800,
            "Measured on 800 photos of validation, the paper's figures on the 32,153 of DeepFashion2's",
        ),
        ("train", 32153, "Measured on 32,153 photos of train, the paper's figures on the 32,153 of DeepFashion2's"),
    ],
)
def test_figures_are_judged_on_the_papers_photos_alone(split: str, photos: int, said: str | None):
    from types import SimpleNamespace

    from harness.jobs.paper_tables import _not_judged

    found = _not_judged(SimpleNamespace(split=SimpleNamespace(name=split, photos=range(photos))))
    assert found is None if said is None else found.startswith(said)


def test_table_4_is_the_papers_and_m0s():
    table = table_4()
    rows = {row[0]: row[1:] for row in table.rows}
    assert list(rows) == list(published().settings.rows)
    full = {name: values[1] for name, values in rows.items()}
    assert full.pop("Backbone") == "resnet152d"
    # At full scale the words here are the paper's, but for timm's name of the backbone.
    assert full == {name: value for name, value in published().settings.rows.items() if name != "Backbone"}
    assert rows["Total epochs"][2] == "380 steps"
    assert all(isinstance(cell, str) for row in table.rows for cell in row)
    assert "| Losses | Softmax + Center + Triplet + MS | " in table.markdown()


def test_settings_in_words_follow_the_settings():
    m12 = in_words(find_recipe("m12").full)
    assert (m12["Descriptor"], m12["Init. LR"]) == ("GeM + MAC", "0.17")
    m10 = in_words(find_recipe("m10").full)
    assert m10["Input size"] == "224 × 384"
    settings = find_recipe("m0").full
    without = settings.losses.centre.model_copy(update={"weight": 0.0})
    losses = settings.losses.model_copy(update={"centre": without})
    assert in_words(settings.model_copy(update={"losses": losses}))["Losses"] == "Softmax + Triplet + MS"


def test_tables_of_photos_without_annotations(data: Path, tmp_path: Path):
    enter("ours", tmp_path)
    assert "has no annotations" in refused(
        "tables", "--data", data, "--split", "test", "--work", tmp_path, "--run", "--json"
    )
