"""The whole job at the smallest size, through the command line: every stage, the store, and what wrong input says."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.commands.tables import fusion_lines
from harness.data.deepfashion2 import read_split
from harness.jobs.fusion_lab import FusionFit
from harness.pipeline import Pipeline
from harness.scoring.official import evaluate
from harness.scoring.results import Results
from harness.scoring.truth import read_truth
from harness.spec import BoxSource
from harness.training.pairs import halves
from harness.types import InputError, Ranking
from harness.workplace import Workplace
from leaderboard.store import Board
from tests.commands import call, ok, refused


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "data"
    ok("data", "render", folder, "--train", 80, "--validation", 40, "--test", 16, "--workers", 1)
    return folder


@pytest.fixture(scope="module")
def work(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two detectors and two retrieval models, hardly trained."""
    folder = tmp_path_factory.mktemp("work")
    for name in ("ATSS", "CascadeMaskRCNN"):
        ok("train", "detector", name, "--data", data, "--work", folder, "--scale", "tiny", "--steps", 3, "--hold-out")
    for name in ("m0", "m9"):
        ok("train", "retriever", name, "--data", data, "--work", folder, "--scale", "tiny", "--steps", 3,
           "--hold-out", "--deepfashion2-only")  # fmt: skip
    ok("tune", "fusion", "--data", data, "--work", folder, "--trials", 2, "--max-per-image", 4, "--no-report")
    return folder


@pytest.fixture
def scratch(work: Path, tmp_path: Path) -> Path:
    """A copy of the working folder that a test may damage."""
    return Path(shutil.copytree(work, tmp_path / "work"))


def score(spec: str, data: Path, work: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ok("score", spec, "--data", data, "--work", work, "--json"))
    return found


def test_a_spec_is_scored_and_the_store_answers_the_second_time(data: Path, work: Path, monkeypatch) -> None:
    first = score("m0,m9 with WBF_2", data, work)
    assert first["rendered"] is True
    assert first["protocol"] == "official"
    monkeypatch.setattr("harness.detection.inference.Detector.load", forbidden)
    monkeypatch.setattr("harness.retrieval.embedding.Retriever.load", forbidden)
    again = score("m0,m9 with WBF_2", data, work)
    assert again["acc"] == first["acc"]
    assert again["row"] == first["row"]
    # A new ensemble of models that are embedded already runs no model.
    assert score("m9*0.5,m0 with WBF_2", data, work)["row"] != first["row"]
    assert score("m9 with WBF_2", data, work)["num_queries"] == first["num_queries"]


def test_a_budgets_features_are_taken_from_those_of_all_boxes(data: Path, scratch: Path, monkeypatch) -> None:
    pipeline = Pipeline(Workplace(scratch), read_split(data, "validation"))
    shutil.rmtree(scratch / "store" / "embed", ignore_errors=True)
    some = pipeline.boxes(pipeline.parse_boxes("WBF_2@30"))
    anew = {name: np.array(one.vectors_ND) for name, one in pipeline.embeddings(["m0", "m9"], some)[0].items()}
    shutil.rmtree(scratch / "store" / "embed")
    pipeline.embeddings(["m0"], pipeline.boxes(BoxSource("WBF_2")))
    pipeline.embeddings(["m9"], pipeline.boxes(BoxSource("WBF_2")))
    monkeypatch.setattr("harness.retrieval.embedding.Retriever.load", forbidden)
    taken, _ = pipeline.embeddings(["m0", "m9"], some)
    for name, vectors in anew.items():
        assert (taken[name].vectors_ND == vectors).all()
    stage = pipeline.stopwatch.stages[-1]
    assert not stage.from_store
    assert stage.cost_seconds > stage.seconds, "what embedding the whole took counts, by the share of the rows"


def test_each_network_of_a_pass_is_told_what_it_took(data: Path, scratch: Path) -> None:
    shutil.rmtree(scratch / "store", ignore_errors=True)
    (scratch / "leaderboard.sqlite").unlink(missing_ok=True)  # a row that is there already stays as it is
    score("m0,m9 with WBF_2", data, scratch)
    board = Board(scratch / "leaderboard.sqlite", create=False)
    (row,) = board.rows()
    board.close()
    names = [stage.stage for stage in row.stages]
    assert names == [
        "decode", "detect ATSS", "detect CascadeMaskRCNN", "fuse WBF_2", "decode and crop", "embed m0", "embed m9",
        "search", "write JSON", "score",
    ]  # fmt: skip
    told = {}
    for path in scratch.glob("store/*/*/manifest.json"):
        manifest = json.loads(path.read_bytes())
        for name in manifest["recipe"]["checkpoints"]:
            told[name] = manifest
    for pass_of, first in ((("ATSS", "CascadeMaskRCNN"), "decode"), (("m0", "m9"), "decode and crop")):
        for name in pass_of:
            assert 0 < told[name]["facts"]["network_seconds"] <= told[name]["seconds"]
        waited = sum(told[name]["waiting_seconds"] for name in pass_of)
        assert next(stage.seconds for stage in row.stages if stage.stage == first) == pytest.approx(waited)
    whole = sum(manifest["seconds"] for manifest in told.values())
    parts = ("decode", "detect ATSS", "detect CascadeMaskRCNN", "decode and crop", "embed m0", "embed m9")
    assert sum(stage.seconds for stage in row.stages if stage.stage in parts) == pytest.approx(whole)


def forbidden(*_: object, **__: object) -> None:
    raise AssertionError("a model was loaded")


def test_the_score_is_that_of_the_json_judged_from_its_files(data: Path, work: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    ok("submit", "m0 with WBF_2", "--data", data, "--work", work, "--split", "validation", "--out", out)
    ok("data", "export", data, "--out", tmp_path, "--split", "validation")
    evaluated = json.loads(
        ok(
            "evaluate",
            out,
            "--query",
            tmp_path / "val_query.json",
            "--gallery",
            tmp_path / "val_gallery.json",
            "--json",
        )
    )
    assert evaluated["acc"] == score("m0 with WBF_2", data, work)["acc"]
    assert evaluated["rendered"] is True
    checked = json.loads(ok("check", out, "--data", data, "--split", "validation", "--json"))
    assert checked["ok"] is True


def test_the_oracle_ladder_searches_each_rung_again(data: Path, work: Path) -> None:
    spec = "m0,m9 with WBF_2"
    found = json.loads(ok("score", spec, "--data", data, "--work", work, "--ladder", "--json"))
    rungs = {rung["name"]: rung["acc"] for rung in found["ladder"]}
    assert list(rungs) == ["as it is", "query classes", "query boxes", "gallery boxes"]
    assert rungs["as it is"] == found["acc"]
    assert rungs["gallery boxes"] == score("m0,m9 + GT", data, work)["acc"]
    # The annotated garments against the detected boxes, searched here by sorting all similarities.
    pipeline = Pipeline(Workplace(work), read_split(data, "validation"))
    asking, searched = pipeline.boxes(BoxSource("GT")), pipeline.boxes(BoxSource("WBF_2"))
    features = [pipeline.embeddings(["m0", "m9"], boxes)[0] for boxes in (asking, searched)]
    is_query, is_shop = (pipeline.split.photos.consumer_mask(one.detections.image_ids) for one in (asking, searched))
    vectors = [
        np.concatenate([one[name].vectors_ND.astype(float) for name in ("m0", "m9")], axis=1) for one in features
    ]
    sims = vectors[0][is_query] @ vectors[1][~is_shop].T
    ranking = Ranking(
        np.flatnonzero(is_query),
        np.flatnonzero(~is_shop)[np.argsort(-sims, axis=1, kind="stable")[:, :20]],
        np.zeros((len(sims), 20), np.float32),
    )
    results = Results.from_ranking(ranking, asking.detections, searched.detections)
    expected = evaluate(results, *read_truth(*pipeline.truth())).acc
    assert rungs["query boxes"] == {str(k): value for k, value in expected.items()}


def test_the_ladder_of_ground_truth_boxes_has_one_rung(data: Path, work: Path) -> None:
    found = json.loads(ok("score", "m0 + GT", "--data", data, "--work", work, "--ladder", "--json"))
    assert [rung["name"] for rung in found["ladder"]] == ["as it is"]


def test_the_test_split_is_answered_without_annotations(data: Path, work: Path, tmp_path: Path) -> None:
    out = tmp_path / "test.json"
    ok("submit", "m0 with WBF_2", "--data", data, "--work", work, "--split", "test", "--out", out)
    rows = json.loads(out.read_text())
    assert {len(row["gallery_image_id"]) for row in rows} == {20}
    assert json.loads(ok("check", out, "--data", data, "--split", "test", "--json"))["ok"] is True
    assert "has no annotations" in refused("score", "m0 with WBF_2", "--data", data, "--work", work, "--split", "test")


def test_a_budget_keeps_the_best_boxes(data: Path, work: Path, tmp_path: Path) -> None:
    out = tmp_path / "few.json"
    ok("submit", "m0 + WBF_2@30", "--data", data, "--work", work, "--split", "validation", "--out", out)
    assert len(json.loads(out.read_text())) < 30


def test_ground_truth_boxes_and_the_histogram(data: Path, work: Path) -> None:
    assert 0 <= score("histogram + GT", data, work)["acc"]["10"] <= 1
    assert score("m0 + GT", data, work)["spec"] == "m0 + GT"


def test_the_leaderboard_tells_it_all(data: Path, work: Path, tmp_path: Path) -> None:
    first, second = (score(f"{name} with WBF_2", data, work)["row"] for name in ("m0", "m9"))
    assert "RENDERED data, not DeepFashion2" in ok("leaderboard", "show", "--work", work)
    compared = json.loads(ok("leaderboard", "compare", first, second, "--work", work, "--json"))
    assert compared["num_queries"] > 0
    page = Path(ok("leaderboard", "html", "--work", work, "--out", tmp_path / "pages").strip())
    assert page == tmp_path / "pages" / "index.html"
    assert "RENDERED" in page.read_text()
    assert first in (tmp_path / "pages" / "rows" / f"{first[:16]}.html").read_text()
    tables = ok("tables", "--data", data, "--work", work)
    assert "Table 6" in tables
    assert "RENDERED" in tables


def test_a_model_trained_on_the_scored_split_is_marked(data: Path, work: Path, scratch: Path) -> None:
    ok("train", "retriever", "m7", "--data", data, "--work", scratch, "--scale", "tiny", "--steps", 2,
       "--split", "train", "--split", "validation", "--deepfashion2-only")  # fmt: skip
    assert score("m7 + GT", data, scratch)["contamination"] == "trained on validation: m7"
    assert score("m0 + GT", data, scratch)["contamination"] is None


def test_fusion_is_not_fitted_on_photos_that_a_detector_has_seen(data: Path, scratch: Path) -> None:
    ok("train", "detector", "ATSS", "--data", data, "--work", scratch, "--scale", "tiny", "--steps", 1, "--force")
    message = refused("tune", "fusion", "--data", data, "--work", scratch, "--trials", 1)
    assert "ATSS may have been trained on the photos" in message
    assert "--hold-out" in message


def damage_store(pattern: str, change: Callable[[Path], object]) -> Callable[[Path], Path]:
    def apply(work: Path) -> Path:
        path = next(work.glob(pattern))
        change(path)
        return path

    return apply


@pytest.mark.parametrize(
    "damage",
    [
        damage_store("store/detect/*/boxes.parquet", lambda path: path.write_bytes(b"damaged")),
        damage_store("store/embed/*/vectors.npy", lambda path: path.write_bytes(path.read_bytes()[:-2])),
        damage_store("store/search/*/similarities.npy", lambda path: path.unlink()),
        damage_store("store/search/*/manifest.json", lambda path: path.write_text("{")),
    ],
    ids=["boxes", "embeddings", "search", "manifest"],
)
def test_a_damaged_artifact_is_named_with_its_remedy(damage, data: Path, work: Path, scratch: Path) -> None:
    shutil.rmtree(scratch / "store")
    score("m0 with WBF_2", data, scratch)
    path = damage(scratch)
    if "detect" in str(path):  # also the boxes of the held-out photos lie there; damage whatever is read
        for other in scratch.glob("store/detect/*/boxes.parquet"):
            other.write_bytes(b"damaged")
            path = other if "ATSS" in (other.parent / "manifest.json").read_text() else path
    message = refused("score", "m0 with WBF_2", "--data", data, "--work", scratch)
    assert str(path.parent) in message
    assert "run again, it will be made anew" in message
    for folder in {other.parent for other in scratch.glob("store/detect/*/boxes.parquet")} | {path.parent}:
        shutil.rmtree(folder)
    assert score("m0 with WBF_2", data, scratch)["acc"] == score("m0 with WBF_2", data, work)["acc"]


def test_an_unknown_model_is_answered_with_what_there_is(data: Path, work: Path) -> None:
    assert "unknown model 'm99'; there are m0, m1" in refused("score", "m99", "--data", data, "--work", work)
    assert "m4 not trained here (retrievers trained: m0, m9)" in refused(
        "score", "m4 + GT", "--data", data, "--work", work
    )
    assert "there are ATSS" in refused("train", "detector", "YOLO", "--data", data, "--work", work)
    assert "there are m0" in refused("train", "retriever", "m99", "--data", data, "--work", work)


def test_a_missing_folder_is_named(tmp_path: Path, work: Path) -> None:
    assert str(tmp_path / "nowhere") in refused("score", "m0", "--data", tmp_path / "nowhere", "--work", work)


def test_an_annotation_without_a_field_is_named(data: Path, work: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(data, tmp_path / "data"))
    path = broken / "validation" / "annos" / "000003.json"
    annotation = json.loads(path.read_text())
    del annotation["item1"]["bounding_box"]
    path.write_text(json.dumps(annotation))
    message = refused("score", "m0 + GT", "--data", broken, "--work", work)
    assert str(path) in message
    assert "bounding_box" in message


def test_a_truncated_photo_is_named_and_nothing_is_half_written(data: Path, scratch: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(data, tmp_path / "data"))
    path = broken / "validation" / "image" / "000005.jpg"
    path.write_bytes(path.read_bytes()[:-400])
    shutil.rmtree(scratch / "store")
    message = refused("score", "m0 with WBF_2", "--data", broken, "--work", scratch)
    assert str(path) in message
    assert not list((scratch / "store").rglob("manifest.json"))
    assert not list((scratch / "store").rglob("*.part"))


def test_several_missing_models_are_named_at_once(data: Path, work: Path) -> None:
    assert "m4, m5 not trained here" in refused("score", "m0,m4-5 + GT", "--data", data, "--work", work)


def test_an_unknown_name_of_an_ensemble_is_answered_with_the_names(data: Path, work: Path) -> None:
    assert "m1-16-wbf5" in refused("score", "m1-16-wbf9", "--data", data, "--work", work)


def test_a_split_taken_out_of_a_rendered_set_stays_rendered(data: Path, work: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "validation", tmp_path / "alone" / "validation")
    assert score("m0 + GT", tmp_path / "alone", work)["rendered"] is True


def test_fusion_fitted_on_the_scored_split_is_marked(data: Path, scratch: Path) -> None:
    assert score("m0 with WBF_2", data, scratch)["contamination"] is None
    ok("tune", "fusion", "--data", data, "--work", scratch, "--split", "validation", "--trials", 1)
    assert score("m0 with WBF_2", data, scratch)["contamination"] == "fusion fitted on validation"
    assert score("m0 + GT", data, scratch)["contamination"] is None


def tuned(data: Path, work: Path, *more: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ok("tune", "fusion", "--data", data, "--work", work, "--json", *more))
    return found["fusions"]


def test_fusion_is_fitted_for_a_retrieval_model_on_one_half_and_reported_on_the_other(
    data: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = json.loads((scratch / "fusion.json").read_bytes())
    options = ("--split", "validation", "--models", "m0,m9*0.5", "--boxes", "WBF(CascadeMaskRCNN,ATSS)")
    first = tuned(data, scratch, *options, "--trials", 5)["WBF_2"]
    assert first["objective"] == "Acc@10 of m0,m9*0.5"
    assert first["num_trials"] == 5
    assert set(first["member_values"]) == {"ATSS", "CascadeMaskRCNN"}
    assert first["value"] >= max(first["member_values"].values()) - 1e-9
    told = first["report"]
    assert told["num_photos"] + first["num_photos"] == 40
    assert told["interval"][0] <= told["fitted"] - told["defaults"] <= told["interval"][1]
    # What was fitted for other fusions stays.
    after = json.loads((scratch / "fusion.json").read_bytes())
    assert after == before | {"WBF_2": first}
    # A search goes on where it ended: five trials more, none of them again.
    calls = []
    from harness.detection import fusion_study

    fuse = fusion_study.fuse
    monkeypatch.setattr(fusion_study, "fuse", lambda *given: calls.append(1) or fuse(*given))
    longer = tuned(data, scratch, *options, "--trials", 8)["WBF_2"]
    assert (longer["num_trials"], len(calls)) == (8, 3)
    assert longer["value"] >= first["value"]
    assert tuned(data, scratch, *options, "--trials", 8)["WBF_2"] == longer
    assert len(calls) == 3
    # The boxes that `score` fuses from now on are made by these settings.
    pipeline = Pipeline(Workplace(scratch), read_split(data, "validation"))
    fused = pipeline.boxes(BoxSource("WBF_2")).detections
    assert np.bincount(fused.image_ids).max() <= (longer["settings"]["max_per_image"] or len(fused))
    shown = ok("tune", "fusion", "--data", data, "--work", scratch, *options, "--trials", 8)
    assert f"Acc@10 of m0,m9*0.5 on RENDERED, validation: searched on {first['num_photos']} photos" in shown
    assert "exact McNemar" in shown
    assert ("worse than the defaults" in shown) == (longer["report"]["fitted"] < longer["report"]["defaults"])


def test_a_search_begins_anew_once_its_boxes_or_its_models_are_others(data: Path, scratch: Path) -> None:
    # A study of its boxes alone was refused here, or went on with what another model had been worth.
    options = ("--split", "validation", "--models", "m0", "--boxes", "WBF_2", "--trials", 1, "--no-report")

    def num_studies() -> int:
        return len(list((scratch / "studies").glob("*.sqlite")))

    before = num_studies()
    tuned(data, scratch, *options)
    ok("train", "retriever", "m0", "--data", data, "--work", scratch, "--scale", "tiny", "--steps", 5, "--seed", 5,
       "--deepfashion2-only", "--force")  # fmt: skip
    tuned(data, scratch, *options)
    ok("detect", "ATSS", "--data", data, "--work", scratch, "--score-threshold", 0.3, "--keep")
    tuned(data, scratch, *options)
    assert num_studies() == before + 3


def figures(table: dict[str, Any], kind: str) -> dict[str, list[Any]]:
    """Row name -> its cells in the columns of a kind."""
    columns = [place for place, column in enumerate(table["columns"]) if column["kind"] == kind]
    return {row[0]: [row[place] for place in columns] for row in table["rows"]}


def test_the_tables_have_rows_for_detectors_and_fusions_that_the_paper_has_not(data: Path, scratch: Path) -> None:
    mine = scratch / "models" / "detectors" / "Mine"
    shutil.copytree(mine.parent / "ATSS", mine)
    (mine / "card.json").write_text((mine / "card.json").read_text().replace('"ATSS"', '"Mine"'))
    before = json.loads((scratch / "fusion.json").read_bytes())
    (scratch / "fusion.json").write_text(json.dumps(before | {"WBF(ATSS,Mine)": before["WBF_2"]}))
    tables = {
        table["number"]: table
        for table in json.loads(ok("tables", "--data", data, "--work", scratch, "--json"))["tables"]
    }
    ours, paper = figures(tables[2], "measured"), figures(tables[2], "published")
    assert ours["Mine"] == ours["ATSS"]
    assert None not in paper["ATSS"]
    assert set(paper["Mine"]) == {None}
    assert figures(tables[5], "measured")["WBF(ATSS,Mine)"] != [None]
    shown = json.loads(
        ok("detect", "WBF(Mine,ATSS)@40/category", "Mine@9", "--data", data, "--work", scratch, "--json")
    )
    assert [(one["name"], one["num_boxes"]) for one in shown["boxes"]] == [
        ("WBF(ATSS,Mine)@40/category", 40),
        ("Mine@9", 9),
    ]
    assert set(shown["boxes"][1]["thresholds"]) == {"all"}


def test_the_tables_take_no_notice_of_a_row_whose_detector_is_gone(data: Path, scratch: Path) -> None:
    # The row's name could not be read any more, and there were no tables at all.
    before = ok("tables", "--data", data, "--work", scratch)
    mine = scratch / "models" / "detectors" / "Mine"
    shutil.copytree(mine.parent / "ATSS", mine)
    score("m0 with Mine", data, scratch)
    shutil.rmtree(mine)
    assert ok("tables", "--data", data, "--work", scratch) == before


def test_a_search_that_found_nothing_that_holds_says_how_to_go_back() -> None:
    report = {"num_photos": 9, "best_member": "ATSS", "best_member_value": 0.4, "defaults": 0.5, "fitted": 0.45}
    fit = FusionFit({"iou_threshold": 0.9}, "AP50", 0.6, {"ATSS": 0.5}, 3, 9, {}, {}, report)
    assert "detect 'WBF_2' --data DIR --fusion defaults --keep" in "\n".join(fusion_lines({"WBF_2": fit}))
    report["fitted"] = 0.55
    assert "defaults" not in "\n".join(fusion_lines({"WBF_2": fit}))


def test_fusion_is_not_fitted_on_what_a_member_has_seen(data: Path, scratch: Path) -> None:
    seen = ("--data", data, "--work", scratch, "--scale", "tiny", "--steps", 1, "--force")
    ok("train", "retriever", "m0", *seen, "--deepfashion2-only")
    tune = ("tune", "fusion", "--data", data, "--work", scratch, "--trials", 1, "--no-report")
    assert "m0 may have been trained on" in refused(*tune, "--models", "m0")
    assert "leave the step 'pca(8)' out" in refused(*tune, "--models", "m9 | pca(8)")
    ok(*tune)
    ok("train", "detector", "ATSS", *seen)
    assert "ATSS may have been trained on" in refused(*tune)
    assert "is no fusion" in refused(*tune, "--boxes", "CascadeMaskRCNN")


def test_fusion_is_set_by_hand_for_a_call_or_kept(data: Path, scratch: Path) -> None:
    place = ("--data", data, "--work", scratch)

    def fused(*options: object) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(ok("detect", "WBF_2", *place, "--json", *options))["boxes"][0]
        return found

    before = fused()
    options = ("--fusion", "iou_threshold=0.9", "--fusion", "conf_type=max", "--fusion", "weights=[2, 1]")
    by_hand = fused(*options)
    assert by_hand["address"] != before["address"]
    assert by_hand["fusion"]["weights"] == [2, 1]
    assert by_hand["fusion"]["conf_type"] == "max"
    assert by_hand["fusion"]["max_per_image"] is None
    assert fused() == before
    fitted = json.loads((scratch / "fusion.json").read_bytes())
    fused(*options, "--flip", "--keep")
    assert fused()["address"] not in (before["address"], by_hand["address"])  # of mirrored photos, too
    ok("detect", "WBF_2", *place, "--keep")
    assert fused() == by_hand
    kept = json.loads((scratch / "fusion.json").read_bytes())
    assert kept["WBF_1"] == fitted["WBF_1"]
    assert kept["WBF_2"] == {"settings": by_hand["fusion"]}
    assert "conf_type max" in ok("detect", "WBF_2", *place)
    assert score("m0 with WBF_2", data, scratch)["contamination"] is None
    fused("--fusion", "defaults", "--keep")
    assert fused()["fusion"]["conf_type"] == "avg"


@pytest.mark.parametrize(
    "option, says",
    [
        ("iou=0.5", "iou: Extra inputs are not permitted; there are method, iou_threshold"),
        ("iou_threshold=7", "less than or equal to 1"),
        ("label_policy=loudest", "Input should be 'apart', 'best' or 'vote'"),
        ("0.5", "expected SETTING=VALUE"),
    ],
)
def test_settings_of_a_fusion_that_there_are_not(option: str, says: str, data: Path, work: Path) -> None:
    result = call("detect", "WBF_2", "--data", data, "--work", work, "--fusion", option)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.replace("│", "").split())


def test_a_fusion_needs_something_to_fuse_and_a_weight_a_detector(data: Path, work: Path) -> None:
    place = ("--data", data, "--work", work, "--fusion")
    assert "nothing is fused" in refused("detect", "ATSS", *place, "conf_type=max")
    assert "WBF_2: weights: expected 2, one a detector, got 3" in refused("detect", "WBF_2", *place, "weights=[1,1,1]")


def test_fitted_settings_are_not_used_for_a_detector_that_was_trained_anew(data: Path, scratch: Path) -> None:
    place = ("--data", data, "--work", scratch)
    ok("train", "detector", "ATSS", *place, "--scale", "tiny", "--steps", 2, "--hold-out", "--force")
    message = refused("score", "m0 with WBF_2", *place)
    assert "the settings of WBF_2 were fitted for another ATSS" in message
    tables = {one["number"]: one for one in json.loads(ok("tables", *place, "--json"))["tables"]}
    assert {row[0]: row[-1] for row in tables[5]["rows"]}["WBF_2"] is None
    ok("detect", "WBF_2", *place, "--fusion", "defaults", "--keep")
    ok("score", "m0 with WBF_2", *place)
    shown = ok("tune", "fusion", *place, "--trials", 1, "--no-report")
    assert "WBF_2: replaces settings that were given by hand" in shown
    ok("score", "m0 with WBF_2", *place)


def test_what_tune_fusion_cannot_fit_is_refused(data: Path, work: Path) -> None:
    tune = ("tune", "fusion", "--data", data, "--work", work, "--trials", 1, "--no-report")
    assert "name models alone, and fusions by --boxes" in refused(*tune, "--models", "m0 + WBF_1")
    assert "fitted without a budget; name WBF_2" in refused(*tune, "--boxes", "WBF_2@9")


def test_a_copy_of_the_training_photos_is_no_validation_split(data: Path, scratch: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "train", tmp_path / "data" / "validation")
    row = score("m0 with WBF_2", tmp_path / "data", scratch)
    assert row["contamination"].startswith("trained on validation: ATSS; trained on validation: CascadeMaskRCNN")


def test_boxes_that_cannot_be_read_are_shown_as_they_were_written(data: Path, work: Path) -> None:
    assert "\n  nope\n  ^" in refused("detect", "nope", "--data", data, "--work", work)
    assert "\n  ATSS | qe(5)\n       ^" in refused("detect", "ATSS | qe(5)", "--data", data, "--work", work)


def test_halves_share_no_pair(data: Path) -> None:
    split = read_split(data, "validation")
    first, second = halves(split, split.photos.image_ids)
    assert len(first) > 0 < len(second)
    pairs = [set(split.items.pair_ids[np.isin(split.items.image_ids, part)].tolist()) for part in (first, second)]
    assert not pairs[0] & pairs[1]
    assert pairs[0] | pairs[1] == set(split.items.pair_ids.tolist())
    assert abs(len(pairs[0]) - len(pairs[1])) <= 1
    with pytest.raises(InputError, match="at least 2 are needed"):
        halves(split, split.items.image_ids[split.items.pair_ids == split.items.pair_ids[0]])


def test_the_tables_show_what_the_models_of_today_reach(data: Path, scratch: Path) -> None:
    def acc10_of_m0() -> object:
        tables = json.loads(ok("tables", "--data", data, "--work", scratch, "--json"))["tables"]
        return figures(next(one for one in tables if one["number"] == 3), "measured")["m0"][0]

    shutil.rmtree(scratch / "store")
    (scratch / "leaderboard.sqlite").unlink(missing_ok=True)
    before = score("m0 + GT", data, scratch)["acc"]["10"]
    assert acc10_of_m0() == before
    ok("train", "retriever", "m0", "--data", data, "--work", scratch, "--scale", "tiny", "--steps", 9, "--seed", 5,
       "--deepfashion2-only", "--force")  # fmt: skip
    assert acc10_of_m0() is None
    after = score("m0 + GT", data, scratch)["acc"]["10"]
    assert acc10_of_m0() == after


@pytest.mark.parametrize("command", ["submit", "html"])
def test_what_is_no_file_is_not_replaced(command: str, data: Path, work: Path, tmp_path: Path) -> None:
    submit = ("submit", "m0 + GT", "--data", data, "--work", work, "--split", "validation", "--out")
    (tmp_path / "file").write_text("kept")
    if command == "submit":
        assert "no regular file" in refused(*submit, tmp_path)
        assert "is not a folder" in refused(*submit, tmp_path / "file" / "out")
    else:
        assert "is not a folder" in refused("leaderboard", "html", "--work", work, "--out", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_working_folder_that_is_a_file_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    assert "is not a folder" in refused("score", "m0 + GT", "--data", data, "--work", tmp_path / "file")


def test_weights_of_another_network_are_refused(data: Path, tmp_path: Path) -> None:
    import torch

    weights = tmp_path / "weights.pth"
    arguments = ("train", "retriever", "m0", "--data", data, "--work", tmp_path / "work", "--scale", "tiny",
                 "--deepfashion2-only", "--init-from", weights)  # fmt: skip
    torch.save({"conv1.0.weight": torch.zeros(3)}, weights)
    assert "not the weights of backbone resnet10t: 74 of its 75 tensors are missing" in refused(*arguments)
    torch.save([1, 2], weights)
    assert "expected a state dict of tensors, got list" in refused(*arguments)


@pytest.mark.parametrize("text", ["{", "[]", '{"WBF_2": 3}', '{"WBF_2": {}}', '{"WBF_2": {"settings": {"iou": 2}}}'])
def test_a_damaged_file_of_fusion_settings_is_named(text: str, data: Path, scratch: Path) -> None:
    (scratch / "fusion.json").write_text(text)
    message = refused("score", "m0 with WBF_2", "--data", data, "--work", scratch)
    assert f"{scratch / 'fusion.json'}: is damaged" in message
    assert "remove it, then fit again: run.py tune fusion" in message


def test_a_damaged_file_of_fusion_settings_is_told_before_a_search(data: Path, scratch: Path, monkeypatch) -> None:
    # It was told after the last trial, with the advice to search again.
    monkeypatch.setattr("harness.detection.fusion_study.fit_fusion", forbidden)
    (scratch / "fusion.json").write_text("{")
    message = refused("tune", "fusion", "--data", data, "--work", scratch, "--trials", 1)
    assert f"{scratch / 'fusion.json'}: is damaged" in message
