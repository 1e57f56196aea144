"""`run.py select` on entered models of known quality: what it tells is what `score` tells."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.artifacts import write_detections
from harness.commands.select import selection_lines
from harness.data.deepfashion2 import read_split
from harness.jobs.selection import Request, ask, how_seen, select
from harness.jobs.selection_costs import cost_of
from harness.pipeline import Pipeline
from harness.spec import BoxSource
from harness.training.cards import image_ids_sha256
from harness.training.pairs import halves
from harness.workplace import ModelCard, Workplace
from tests.commands import call, ok, refused

GOOD = ("Aa", "Bb", "Cc")
NOISE = "Noise"
QUICK = ("--boxes", "GT", "--halves", 2, "--trials", 8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "data"
    ok("data", "render", folder, "--train", 100, "--validation", 120, "--test", 8, "--workers", 1)
    return folder


def enter(name: str, seed: int, noise: float, data: Path, work: Path, split: str = "validation", *more) -> None:
    """Embeddings of the annotated boxes around a centre a garment."""
    pipeline = Pipeline(Workplace(work), read_split(data, split))
    boxes, items = pipeline.boxes(BoxSource("GT")).detections, pipeline.split.items
    assert (boxes.boxes_xyxy == items.boxes_xyxy).all()
    rng = np.random.default_rng(seed)
    _, garments = np.unique(np.stack([items.pair_ids, items.styles]), axis=1, return_inverse=True)
    rows = rng.normal(size=(garments.max() + 1, 16))[garments] + noise * rng.normal(size=(len(items), 16))
    folder = work.parent / f"files of {name} {split}"
    folder.mkdir()
    np.save(folder / "rows.npy", rows.astype(np.float32))
    write_detections(folder / "boxes.parquet", boxes)
    ok("enter", "embeddings", name, "--vectors", folder / "rows.npy", "--boxes", folder / "boxes.parquet",
       "--data", data, "--work", work, "--split", split, *more)  # fmt: skip


@pytest.fixture(scope="module")
def work(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place") / "work"
    for number, name in enumerate(GOOD):
        enter(name, number, 1.4, data, folder)
    enter(NOISE, 9, 60.0, data, folder)
    enter("Seen", 10, 0.3, data, folder, "validation", "--saw", "validation")
    return folder


@pytest.fixture(scope="module")
def told(data: Path, work: Path):
    return json.loads(ok("select", "--data", data, "--work", work, *QUICK, "--json"))


def test_the_choice_has_the_score_that_was_told(data: Path, work: Path, told) -> None:
    scored = json.loads(ok("score", told["spec"], "--data", data, "--work", work, "--json"))
    counts = told["num_queries"]
    assert sum(counts) == scored["num_queries"]
    hits = told["chosen_acc"] * counts[0] + told["other_acc"] * counts[1]
    assert hits == pytest.approx(scored["acc"]["10"] * scored["num_queries"], abs=1e-6)
    assert told["num_corrected"] == 0
    for against in told["against"]:
        assert against["difference"] == pytest.approx(told["other_acc"] - against["acc"])
        low, high = against["interval"]
        assert low <= against["difference"] <= high


def test_every_offer_has_the_score_that_was_told(data: Path, work: Path, told) -> None:
    counts = told["num_queries"]
    for offer in told["offers"]:
        acc = json.loads(ok("score", offer["spec"], "--data", data, "--work", work, "--json"))["acc"]["10"]
        assert offer["chosen_acc"] * counts[0] + offer["other_acc"] * counts[1] == pytest.approx(acc * sum(counts))


def test_noise_is_left_and_good_models_are_taken(told) -> None:
    models = {model["name"]: model for model in told["models"]}
    assert list(models) == [*GOOD, NOISE]
    assert models[NOISE]["chosen_share"] <= 0.5
    assert models[NOISE]["other_acc"] < min(models[name]["other_acc"] for name in GOOD) - 0.2
    assert sum(models[name]["weight"] is not None for name in GOOD) >= 2
    assert told["against"][0]["spec"] == "Aa,Bb,Cc,Noise + GT"
    assert told["against"][1]["acc"] < told["other_acc"]
    sizes = [offer["num_models"] for offer in told["offers"]]
    assert {1, 2, 3, 4} <= set(sizes)
    assert sizes == sorted(sizes)


def test_what_a_model_adds_is_what_is_lost_without_it(data: Path, work: Path) -> None:
    request = Request(boxes="GT", num_trials=0, num_halvings=1, models="Aa,Bb,Cc")
    found = select(Pipeline(Workplace(work), read_split(data, "validation")), request)
    members = [model for model in found.models if model.weight is not None]
    assert len(members) > 1
    accs = {offer.spec: offer for offer in found.offers}
    for model in members:
        rest = ",".join(other.name for other in members if other is not model) + " + GT"
        if rest in accs:
            assert model.adds_chosen == pytest.approx(found.chosen_acc - accs[rest].chosen_acc)
            assert model.adds_other == pytest.approx(found.other_acc - accs[rest].other_acc)
    assert any(",".join(other.name for other in members if other is not one) + " + GT" in accs for one in members)
    assert all(model.weight in (None, 1.0) for model in found.models)


def test_models_that_saw_the_photos_are_left_out_and_named(data: Path, work: Path, told) -> None:
    assert told["left_out"] == {"Seen": "trained on"}
    taken = json.loads(ok("select", "--data", data, "--work", work, *QUICK, "--with-contaminated", "--json"))
    assert "Seen" in taken["spec"]
    assert taken["left_out"] == {}
    assert any("Seen was trained on validation, and may be chosen" in doubt for doubt in taken["doubts"])
    message = refused("select", "Seen", "--data", data, "--work", work, *QUICK)
    assert "no model is left to choose from: Seen was trained on validation" in message
    assert "--with-contaminated" in message


def test_the_second_time_nothing_is_searched_for_candidates(data: Path, work: Path, told, monkeypatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("candidates were gathered")

    monkeypatch.setattr("harness.ranking.selection.candidates.gather", forbidden)
    again = json.loads(ok("select", "--data", data, "--work", work, *QUICK, "--json"))
    assert again == told
    other = call("select", "--data", data, "--work", work, *QUICK, "--candidates", 25, "--json")
    assert str(other.exception) == "candidates were gathered"


def test_the_choice_is_kept_with_the_photos_that_made_it(data: Path, work: Path, told) -> None:
    kept = Workplace(work).every_selection()[told["spec"]]
    fingerprint = read_split(data, "validation").fingerprint
    assert [(one["split"], one["fingerprint"]) for one in kept] == [("validation", fingerprint)]
    assert kept[0]["optimism"] == told["optimism"]["mean"]
    assert kept[0]["models"] == [*GOOD, NOISE]
    assert kept[0]["half"]["num_queries"] == told["num_queries"][0]


def test_choices_of_other_photos_stay_and_a_damaged_file_is_named(tmp_path: Path, data: Path) -> None:
    place = Workplace(tmp_path)
    place.keep_selection("m4 + GT", {"split": "validation", "fingerprint": "a", "k": 10})
    place.keep_selection("m4 + GT", {"split": "train", "fingerprint": "b"})
    place.keep_selection("m4 + GT", {"split": "validation", "fingerprint": "a", "k": 1})
    place.keep_selection("m9 + GT", {"split": "validation", "fingerprint": "a"})
    kept = place.every_selection()
    assert {one["fingerprint"]: one.get("k") for one in kept["m4 + GT"]} == {"a": 1, "b": None}
    assert list(kept) == ["m4 + GT", "m9 + GT"]
    for text in ("{", "[]", '{"m4 + GT": {}}', '{"m4 + GT": [{}]}', '{"m4 + GT": [3]}'):
        place.selections.write_text(text)
        assert "remove it, then choose again" in refused("select", "--data", data, "--work", tmp_path)


def told_alike(data: Path, work: Path) -> bool:
    found = select(
        Pipeline(Workplace(work), read_split(data, "validation")), Request(models="Aa,Bb + GT", num_trials=0)
    )
    return found.alike_fits


def test_budgets_hold(data: Path, work: Path) -> None:
    costs = [part for number, name in enumerate(GOOD) for part in ("--cost", f"{name}={number + 1}")]
    common = ("select", *GOOD, "--data", data, "--work", work, *QUICK, "--no-weights", "--json")
    cheap = json.loads(ok(*common, *costs, "--max-milliseconds", 3))
    assert all(offer["milliseconds"] <= 3 for offer in cheap["offers"])
    assert cheap["spec"] in {"Aa + GT", "Bb + GT", "Cc + GT", "Aa,Bb + GT"}
    assert [model["cost"]["milliseconds"] for model in cheap["models"]] == [1, 2, 3]
    assert {model["cost"]["whence"] for model in cheap["models"]} == {"as given"}
    gigabytes = cheap["models"][0]["cost"]["gigabytes"]
    num_boxes = len(read_split(data, "validation").items)
    assert (cheap["alike_fits"], told_alike(data, work)) == (False, True)
    assert gigabytes == pytest.approx(16 * 2 * num_boxes / 1e9)
    small = json.loads(ok(*common, "--max-gigabytes", 1.5 * gigabytes))
    assert all(offer["num_models"] == 1 for offer in small["offers"])
    assert {model["cost"]["milliseconds"] for model in small["models"]} == {None}
    few = json.loads(ok(*common, "--max-models", 2, "--method", "greedy"))
    assert max(offer["num_models"] for offer in few["offers"]) == 2
    message = refused(*common, *costs, "--max-milliseconds", 0.5)
    assert "Aa takes 1 ms a crop (--max-milliseconds), the least of all; the limit is 0.5" in message


def test_costs_are_those_that_the_store_measured(data: Path, work: Path, tmp_path: Path) -> None:
    place = Workplace(Path(shutil.copytree(work, tmp_path / "work")))
    pipeline = Pipeline(place, read_split(data, "validation"))
    boxes = pipeline.boxes(BoxSource("GT"))
    pipeline.embeddings(["histogram"], boxes)
    artifact = place.store.find(pipeline.embed_recipe(pipeline.retriever_card("histogram"), boxes))
    manifest = json.loads((artifact.folder / "manifest.json").read_bytes())

    def cost(**changes):
        (artifact.folder / "manifest.json").write_text(json.dumps(manifest | changes))
        return cost_of(pipeline, "histogram", boxes)

    num_boxes = len(boxes.detections)
    assert cost().milliseconds == pytest.approx(1000 * manifest["seconds"] / num_boxes)
    assert cost().whence == f"{num_boxes} crops embedded here"
    assert cost(made_together=3).whence.endswith("here, its own share of 3 models' pass")
    without = cost(made_together=3, waiting_seconds=None)  # as earlier versions kept it
    assert without.whence.endswith("here, an equal share of 3 models' pass")
    assert (cost(resumed=True).milliseconds, cost(resumed=True).whence) == (
        None,
        "not known: embedding was interrupted",
    )
    assert cost_of(pipeline, "histogram", boxes, 7.5).milliseconds == 7.5


def test_one_model_can_be_chosen_from(data: Path, work: Path) -> None:
    found = json.loads(ok("select", "Bb", "--data", data, "--work", work, *QUICK, "--json"))
    assert found["spec"] == "Bb + GT"
    assert found["models"][0]["adds_other"] is None
    assert found["against"][0]["difference"] == 0
    assert found["optimism"]["mean"] == 0  # where nothing is chosen, nothing is promised: the halves cancel out


def test_boxes_may_stand_in_the_spec_and_k_may_be_another(data: Path, work: Path) -> None:
    found = json.loads(ok("select", "Aa,Bb + GT", "--data", data, "--work", work, "--k", 1, "--halves", 1,
                          "--no-weights", "--json"))  # fmt: skip
    assert (found["boxes"], found["k"]) == ("GT", 1)
    scored = json.loads(ok("score", found["spec"], "--data", data, "--work", work, "--json"))
    counts = found["num_queries"]
    hits = found["chosen_acc"] * counts[0] + found["other_acc"] * counts[1]
    assert hits == pytest.approx(scored["acc"]["1"] * sum(counts))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("m99",), "unknown model 'm99'"),
        (("m4",), "m4 not trained here"),
        (("Aa*0.5", "Bb"), "the weights are what is chosen; name Aa without"),
        (("Aa,Bb + GT | qe(3)",), "leave the step 'qe"),
        (("Aa", "--cost", "Bb=3"), "a cost is given for Bb; the models to choose from are Aa"),
        (("Aa", "--boxes", "GT@126k"), "no budget can choose"),
        (("--split", "test"), "has no annotations"),
    ],
)
def test_what_cannot_be_chosen_from_is_one_message(data: Path, work: Path, arguments, message) -> None:
    boxes = () if "--boxes" in arguments or "+" in arguments[0] else ("--boxes", "GT")
    assert message in refused("select", *arguments, "--data", data, "--work", work, *boxes)


def test_an_empty_working_folder_says_how_to_fill_it(data: Path, tmp_path: Path) -> None:
    assert "run.py train retriever NAME" in refused("select", "--data", data, "--work", tmp_path)


@pytest.mark.parametrize("text", ["Aa", "=3", "Aa=much", "Aa=-1", "Aa=nan", "Aa=inf"])
def test_a_cost_is_a_name_and_milliseconds(data: Path, work: Path, text) -> None:
    result = call("select", "--data", data, "--work", work, "--cost", text)
    assert result.exit_code == 2
    assert "expected NAME=MILLISECONDS" in result.output


def test_of_a_part_of_the_photos_only_its_pairs_ask_and_answer(data: Path, tmp_path: Path) -> None:
    split = read_split(data, "train")
    for number, name in enumerate(GOOD):
        enter(name, number, 1.4, data, tmp_path / "work", "train")
    part, rest = halves(split, split.photos.image_ids)
    pipeline = Pipeline(Workplace(tmp_path / "work"), split, image_ids=part)
    boxes = pipeline.boxes(BoxSource("GT"))
    asked = ask(pipeline, boxes)
    photos = boxes.detections.image_ids
    assert not np.isin(rest, photos[asked.rows]).any()
    assert not np.isin(rest, photos[asked.gallery_rows]).any()
    assert set(asked.pair_ids) == set(split.items.take(np.isin(split.items.image_ids, part)).pair_ids)
    found = select(pipeline, Request(boxes="GT", num_trials=0, num_halvings=2))
    assert sum(found.num_queries) == len(asked.pair_ids)


def test_a_model_that_was_trained_on_the_rest_of_a_split_did_not_see_the_held_out_pairs(data: Path) -> None:
    split = read_split(data, "train")
    every = split.photos.image_ids
    part, rest = halves(split, every)

    def seen(ids, **more) -> str | None:
        record = {"split": "train", "fingerprint": split.fingerprint, "image_ids_sha256": image_ids_sha256(ids)}
        trained_on, others = (record,) if len(ids) else (), dict.fromkeys(more, (record,))
        card = ModelCard("m4", Path(), "", "", trained_on, 0.0, **others)
        return how_seen(Pipeline(Workplace(Path()), split, image_ids=part), card)

    assert seen(rest) is None
    assert seen(every) == "trained on"
    assert seen(part) == "trained on"
    assert seen(every[:0], copied_from=True) == "trained on copies of"
    assert seen(rest, chosen_on=True) == "chosen on"


def test_a_person_is_told_all_of_it(data: Path, work: Path, told) -> None:
    shown = ok("select", "--data", data, "--work", work, *QUICK)
    assert "RENDERED validation with GT" in shown
    assert "left out: Seen was trained on validation" in shown
    assert f"RENDERED: chosen: {told['spec']}" in shown
    weighted = any(model["weight"] not in (None, 1) for model in told["models"])
    assert ("the weights were fitted on validation" in shown) == weighted
    assert f"run.py score '{told['spec']}'" in shown
    assert "ms a crop of Aa, Bb, Cc, Noise: not known: embedded elsewhere" in shown
    assert "what is not known counts as nothing; say it: --cost Aa=MS" in shown


def test_a_choice_that_gains_nothing_elsewhere_says_what_to_take(data: Path, work: Path) -> None:
    pipeline = Pipeline(Workplace(work), read_split(data, "validation"))
    request = Request(boxes="GT", num_trials=0, num_halvings=1, models="Aa,Bb", max_models=1)
    found = replace(select(pipeline, request), mean_gain=-0.01, alike_fits=True)
    assert "  so rather take all models alike: Aa,Bb + GT" in selection_lines(found)
    assert any("against all models alike (Aa,Bb + GT) " in line for line in selection_lines(found))
    over = selection_lines(replace(found, alike_fits=False))
    assert not any("so rather take" in line for line in over)
    assert any("against all models alike (Aa,Bb + GT, over the budget)" in line for line in over)
    # Where all models are what was chosen, there is nothing else to take.
    alike = selection_lines(select(pipeline, replace(request, models="Aa", max_models=None)))
    assert not any("all models alike (" in line or "so rather" in line for line in alike)


def test_a_model_that_was_not_entered_for_all_boxes_is_left_out_unless_it_is_named(
    data: Path, work: Path, tmp_path: Path
) -> None:
    scratch = Path(shutil.copytree(work, tmp_path / "work"))
    pipeline = Pipeline(Workplace(scratch), read_split(data, "validation"))
    boxes = pipeline.boxes(BoxSource("GT")).detections.take(slice(0, 7))
    write_detections(tmp_path / "boxes.parquet", boxes)
    np.save(tmp_path / "rows.npy", np.eye(7, dtype=np.float32))
    ok("enter", "embeddings", "Part", "--vectors", tmp_path / "rows.npy", "--boxes", tmp_path / "boxes.parquet",
       "--data", data, "--work", scratch)  # fmt: skip
    place = ("--data", data, "--work", scratch, *QUICK)
    found = json.loads(ok("select", *place, "--json"))
    assert "Part" not in [model["name"] for model in found["models"]]
    assert "Part is left out: it was entered, and not for all boxes of GT" in found["doubts"]
    assert "7 of" not in ok("select", *place)
    assert "are not among those entered for Part" in refused("select", "Aa,Part", *place)
