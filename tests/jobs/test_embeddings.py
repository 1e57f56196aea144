"""`run.py embed`: several models, box sets and processes, settings that are kept, and everything that can go wrong."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from harness import shards
from harness.artifacts import file_sha256
from harness.data import photos
from harness.retrieval import embedding
from harness.training.processes import Place
from tests.commands import call, ok, refused

ROOT = Path(__file__).parents[2]
MODELS = ("m4", "m9")
SPEC = "m4,m9,histogram + GT"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "data"
    ok("data", "render", folder, "--train", 24, "--validation", 48, "--test", 8, "--workers", 1)
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that are hardly trained, of different input sizes where the recipes have them, and nothing else."""
    folder = tmp_path_factory.mktemp("work")
    for name in MODELS:
        ok("train", "retriever", name, "--data", data, "--work", folder, "--scale", "tiny", "--steps", 2,
           "--deepfashion2-only")  # fmt: skip
    return folder


@pytest.fixture
def work(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "work"))


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "PHOTOS_A_SHARD", 12)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The photos that are decoded, as they are."""
    seen: list[Path] = []
    decode = photos.decode_rgb

    def watched(path: Path) -> Any:
        seen.append(path)
        return decode(path)

    monkeypatch.setattr(photos, "decode_rgb", watched)
    return seen


def told(*arguments: object) -> list[dict[str, Any]]:
    found: dict[str, Any] = json.loads(ok("embed", *arguments, "--json"))
    assert found["rendered"] is True
    embeddings: list[dict[str, Any]] = found["embeddings"]
    return embeddings


def vectors(report: dict[str, Any]) -> np.ndarray:
    found: np.ndarray = np.load(report["file"])
    assert found.shape == (report["rows"], report["dimensions"])
    return found


def test_every_photo_is_decoded_once_whatever_the_number_of_models(data: Path, work: Path, decoded: list[Path]) -> None:
    found = told(SPEC, "m4 + GT", "--data", data, "--work", work)
    assert [one["name"] for one in found] == ["m4", "m9", "histogram"]
    assert len(decoded) == len(set(decoded)) == 48
    assert len({tuple(vectors(one).shape) for one in found}) == 2
    alone = Path(shutil.copytree(work, work.with_name("alone"), ignore=shutil.ignore_patterns("store")))
    for one in found:
        again = told(f"{one['name']} + GT", "--data", data, "--work", alone, "--batch-size", 7, "--threads", 3)[0]
        assert again["address"] == one["address"]
        assert np.array_equal(vectors(again), vectors(one))
    decoded.clear()
    told(SPEC, "--data", data, "--work", work)
    assert decoded == []


def test_only_the_missing_model_is_run(data: Path, work: Path, decoded: list[Path], monkeypatch) -> None:
    told("m4 + GT", "--data", data, "--work", work)
    load, loaded = embedding.Retriever.load, []
    monkeypatch.setattr(
        embedding.Retriever, "load", lambda folder, **how: loaded.append(folder.name) or load(folder, **how)
    )
    decoded.clear()
    told("m4,m9 + GT", "--data", data, "--work", work)
    assert loaded == ["m9"]
    assert len(decoded) == 48


def test_it_says_what_it_did(data: Path, work: Path) -> None:
    said = ok("embed", SPEC, "--data", data, "--work", work, "--flip", "--split", "validation")
    assert "of GT on RENDERED validation (with the mirrored crop, 32 bits) in" in said
    assert "of GT on RENDERED validation (untrained) in" in said


# --- settings -----------------------------------------------------------------------------------


def params(work: Path) -> list[dict[str, Any]]:
    manifests = (json.loads(path.read_text()) for path in work.glob("store/embed/*/manifest.json"))
    return sorted((one["recipe"]["params"] for one in manifests), key=str)


def test_settings_are_of_this_call_unless_they_are_kept(data: Path, work: Path) -> None:
    place = ("m4,histogram + GT", "--data", data, "--work", work)
    plain = told(*place)
    flipped = told(*place, "--flip")
    assert flipped[0]["address"] != plain[0]["address"]
    assert not np.array_equal(vectors(flipped[0]), vectors(plain[0]))
    # The histogram knows no settings: what was embedded stays valid.
    assert flipped[1] == plain[1]
    assert params(work) == [{"flip": True}, {}, {}]
    told(*place, "--flip", "--keep")
    assert json.loads((work / "embedding.json").read_text()) == {"m4": {"flip": True}}
    assert told(*place)[0]["address"] == flipped[0]["address"]
    score = json.loads(ok("score", *place, "--json"))
    assert score["num_queries"] > 0
    assert params(work) == [{"flip": True}, {}, {}]
    assert "from now on the models look plainly" in ok("embed", *place, "--keep")
    assert json.loads((work / "embedding.json").read_text()) == {}
    assert told(*place)[0]["address"] == plain[0]["address"]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_other_precisions_are_near_and_have_addresses_of_their_own(precision: str, data: Path, work: Path) -> None:
    place = ("m4 + GT", "--data", data, "--work", work)
    exact, rough = vectors(told(*place)[0]), vectors(told(*place, "--precision", precision)[0])
    similarities = (exact.astype(float) * rough).sum(axis=1)
    assert similarities.min() > 0.99
    assert not np.array_equal(exact, rough)
    assert params(work) == [{"precision": precision.removeprefix("fp")}, {}]
    assert told(*place, "--precision", "fp32")[0]["address"] == told(*place)[0]["address"]


@pytest.mark.parametrize("text", ["{", "[]", '{"m4": 3}', '{"m4": {"flop": true}}', '{"m4": {"precision": "8"}}'])
def test_a_damaged_file_of_settings_is_named(text: str, data: Path, work: Path) -> None:
    (work / "embedding.json").write_text(text)
    message = refused("embed", "m4 + GT", "--data", data, "--work", work)
    assert f"{work / 'embedding.json'}: is damaged" in message
    assert "remove it" in message


def test_a_damaged_file_of_settings_is_told_before_embedding(data: Path, work: Path, decoded: list[Path]) -> None:
    (work / "embedding.json").write_text("{")
    message = refused("embed", "m4 + GT", "--data", data, "--work", work, "--flip", "--keep")
    assert f"{work / 'embedding.json'}: is damaged" in message
    assert decoded == []


def test_what_cannot_be_set(data: Path, work: Path) -> None:
    message = refused("embed", "histogram + GT", "--data", data, "--work", work, "--flip")
    assert "histogram: no trained model, so there is nothing to set" in message


@pytest.mark.parametrize(
    "options", [("--devices", "0"), ("--precision", "8"), ("--batch-size", "0"), ("--threads", "0")]
)
def test_wrong_options_are_wrong_usage(options: tuple[str, str], data: Path, work: Path) -> None:
    result = call("embed", "m4 + GT", "--data", data, "--work", work, *options)
    assert result.exit_code == 2
    assert options[0] in result.output


def test_what_is_no_ensemble(data: Path, work: Path) -> None:
    assert "unknown model 'm99'" in refused("embed", "m4 + GT", "m99", "--data", data, "--work", work)
    assert "m5 not trained here" in refused("embed", "m4,m5 + GT", "--data", data, "--work", work)
    out = work / "out"
    message = refused("embed", "m4 + GT", "m4 + ATSS", "--data", data, "--work", work, "--out", out)
    assert "ATSS not trained here" in message
    assert not (work / "store").exists()


# --- processes and interruptions ----------------------------------------------------------------


@pytest.mark.usefixtures("small_shards")
def test_a_run_goes_on_at_the_first_missing_shard(
    data: Path, work: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ("--data", data, "--work", work)
    expected = vectors(told("m4 + GT", *place)[0])
    shutil.rmtree(work / "store")
    embed, calls = embedding.embed, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return embed(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(embedding, "embed", interrupted)
        assert call("embed", "m4 + GT", *place).exit_code != 0
    assert len(list(work.glob("store/embed/*/part-*.npy"))) == 2
    decoded.clear()
    # m9 has no shard yet; of m4, 24 of 48 photos are done: they are decoded for m9 alone.
    found = told("m4,m9 + GT", *place)
    assert len(decoded) == 48
    assert np.array_equal(vectors(found[0]), expected)


SCRIPT = """
import os, time
from harness import shards
from harness.retrieval import embedding
shards.PHOTOS_A_SHARD = 4
embed, shares = embedding.embed, []

def held(*arguments, **options):
    shares.append(1)
    if len(shares) > int(os.environ.get("SHARDS_OF_A_PROCESS", 100)):
        time.sleep(600)
    return embed(*arguments, **options)

embedding.embed = held
from run import main
if __name__ == "__main__":
    main()
"""


def start(work: Path, *arguments: object, launcher: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
    script = work.parent / "embed.py"
    script.write_text(SCRIPT)
    command = [sys.executable, *launcher, str(script), "embed", *map(str, arguments), "--work", str(work)]
    paths = {"PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | paths)


@pytest.mark.slow
def test_killed_with_two_processes_it_goes_on(
    data: Path, work: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = vectors(told("m4 + GT", "--data", data, "--work", work)[0])
    shutil.rmtree(work / "store")
    monkeypatch.setenv("SHARDS_OF_A_PROCESS", "2")
    child = start(work, "m4 + GT", "--data", data, "--devices", 2)
    while child.poll() is None and len(list(work.glob("store/embed/*/part-*.sha256"))) < 3:
        time.sleep(0.02)
    assert child.poll() is None, child.communicate()
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    time.sleep(1)  # the workers die with it
    done = len(list(work.glob("store/embed/*/part-*.sha256")))
    monkeypatch.setattr(shards, "PHOTOS_A_SHARD", 4)
    decoded.clear()
    assert np.array_equal(vectors(told("m4 + GT", "--data", data, "--work", work)[0]), expected)
    assert len(decoded) == 48 - 4 * done
    assert not list(work.rglob("store/**/*.part"))


def test_devices_are_the_launchers_affair(data: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.sharing.place", lambda: Place(0, 4, 0, 2))
    message = refused("embed", "m4 + GT", "--data", data, "--work", work, "--devices", 2)
    assert message == "--devices 2: the launcher started 2 processes on each of 2 machines; leave the option out"


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.mark.slow
def test_processes_of_a_launcher_share_the_work_and_tell_an_error_once(data: Path, work: Path, tmp_path: Path) -> None:
    expected = vectors(told("m4 + GT", "--data", data, "--work", work)[0])
    shutil.rmtree(work / "store")
    broken = Path(shutil.copytree(data, tmp_path / "data"))
    path = broken / "validation" / "image" / "000006.jpg"  # of the second shard, which is the second process's
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    child = start(work, "m4 + GT", "--data", broken, launcher=TORCHRUN)
    output, errors = child.communicate(timeout=120)
    assert child.returncode == 1
    assert output == ""
    assert [line for line in errors.splitlines() if line.startswith("error:")] == [
        next(line for line in errors.splitlines() if str(path) in line)
    ]
    done = len(list(work.glob("store/embed/*/part-*.sha256")))
    assert done == 6  # all shards of the first process
    path.write_bytes(whole)
    child = start(work, "m4 + GT", "--data", broken, "--json", launcher=TORCHRUN)
    output, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors
    assert np.array_equal(vectors(json.loads(output)["embeddings"][0]), expected)


# --- what can be wrong with files ---------------------------------------------------------------


@pytest.mark.usefixtures("small_shards")
def test_a_broken_photo_is_named_and_the_run_goes_on_when_it_is_replaced(
    data: Path, work: Path, tmp_path: Path, decoded: list[Path]
) -> None:
    expected = vectors(told("m4,m9 + GT", "--data", data, "--work", work)[1])
    shutil.rmtree(work / "store")
    broken = Path(shutil.copytree(data, tmp_path / "data"))
    path = broken / "validation" / "image" / "000030.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    message = refused("embed", "m4,m9 + GT", "--data", broken, "--work", work)
    assert str(path) in message
    assert "restore the photo" in message
    assert len(list(work.glob("store/embed/*/part-*.npy"))) == 4  # two shards of each model
    path.write_bytes(whole)
    decoded.clear()
    found = told("m4,m9 + GT", "--data", broken, "--work", work)
    assert len(decoded) == 24  # the shard of the photo, and the one that had not been begun
    assert np.array_equal(vectors(found[1]), expected)


@pytest.mark.usefixtures("small_shards")
def test_damaged_and_foreign_shards_are_not_taken(data: Path, work: Path, tmp_path: Path, decoded: list[Path]) -> None:
    broken = Path(shutil.copytree(data, tmp_path / "data"))
    path = broken / "validation" / "image" / "000045.jpg"
    whole = path.read_bytes()
    path.write_bytes(b"")
    refused("embed", "m4 + GT", "--data", broken, "--work", work)
    path.write_bytes(whole)
    parts = sorted(work.glob("store/embed/*/part-*.npy"))
    assert len(parts) == 3
    decoded.clear()
    told("m4 + GT", "--data", broken, "--work", work, "--flip")
    assert len(decoded) == 48  # shards of other settings
    parts[0].write_bytes(parts[0].read_bytes()[:-1])  # damaged since
    decoded.clear()
    told("m4 + GT", "--data", broken, "--work", work)
    assert len(decoded) == 24


def forge(folder: Path) -> None:
    """Let the card speak of whatever weights are there."""
    card = json.loads((folder / "card.json").read_text())
    card["weights_sha256"] = file_sha256(folder / "weights.pt")
    (folder / "card.json").write_text(json.dumps(card))


def test_weights_that_are_not_the_cards(data: Path, work: Path) -> None:
    weights = work / "models" / "retrievers" / "m4" / "weights.pt"
    shutil.copyfile(work / "models" / "retrievers" / "m9" / "weights.pt", weights)
    message = refused("embed", "m4 + GT", "--data", data, "--work", work)
    assert f"{weights}: not the weights that card.json speaks of" in message


def test_a_training_that_diverged_is_named(data: Path, work: Path) -> None:
    folder = work / "models" / "retrievers" / "m4"
    state = torch.load(folder / "weights.pt", weights_only=True)
    torch.save({name: value * torch.nan if value.is_floating_point() else value for name, value in state.items()},
               folder / "weights.pt")  # fmt: skip
    forge(folder)
    message = refused("embed", "m4 + GT", "--data", data, "--work", work)
    assert "retriever m4: the embedding of box row 0 has length nan instead of 1" in message
    assert "float16, which knows no number above 65,504; use --precision bf16 or 32" in refused(
        "embed", "m4 + GT", "--data", data, "--work", work, "--precision", "16"
    )


def test_photos_of_odd_shapes(data: Path, work: Path, tmp_path: Path) -> None:
    odd = Path(shutil.copytree(data, tmp_path / "data"))
    for number, shape in enumerate([(300, 200), (1, 1), (2000, 1), (1, 2000)], start=1):
        cv2.imwrite(str(odd / "validation" / "image" / f"{number:06d}.jpg"), np.full((*shape, 3), 255, np.uint8))
    found = vectors(told("m4 + GT", "--data", odd, "--work", work)[0])
    assert np.allclose(np.linalg.norm(found.astype(float), axis=1), 1, atol=2e-3)


@pytest.mark.usefixtures("small_shards")
def test_a_full_disk_is_one_message_and_the_run_goes_on(data: Path, work: Path, decoded: list[Path]) -> None:
    """No file may grow beyond 8 KiB, as on a disk that is nearly full: shards of 12 photos fit, the whole does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        message = refused("embed", "m4 + GT", "--data", data, "--work", work)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "vectors.npy: cannot be written, there is no room (File too large)" in message
    assert "make room and run again: what is finished is kept" in message
    assert len(list(work.glob("store/embed/*/part-*.npy"))) == 4
    assert not list(work.rglob("*.part"))
    decoded.clear()
    assert told("m4 + GT", "--data", data, "--work", work)[0]["rows"] > 0
    assert decoded == []


# --- embeddings made elsewhere ------------------------------------------------------------------


def score(spec: str, data: Path, work: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ok("score", spec, "--data", data, "--work", work, "--json"))
    return found


def test_there_and_back_scores_are_equal(data: Path, work: Path, decoded: list[Path]) -> None:
    out = work / "out"
    said = ok("embed", "m4,m9 + GT", "--data", data, "--work", work, "--out", out)
    assert f"for others: m4.npy, m9.npy and boxes.json in {out}" in said
    assert sorted(path.name for path in out.iterdir()) == ["boxes.json", "m4.npy", "m9.npy"]
    common = ("--boxes", out / "boxes.json", "--data", data, "--work", work)
    ok("enter", "embeddings", "m18", "--vectors", out / "m4.npy", *common)
    entered = json.loads(
        ok("enter", "embeddings", "Ours", "--vectors", out / "m9.npy", *common, "--trained-on", "shops", "--json")
    )
    assert (entered["kind"], entered["trained_on_said"], entered["rendered"]) == ("entered", "shops", True)
    decoded.clear()
    one, other = score("m4,m9*0.5 + GT", data, work), score("m18,Ours*0.5 + GT", data, work)
    assert decoded == []
    assert other["acc"] == one["acc"]
    assert other["spec"] == "Ours*0.5,m18 + GT"
    assert other["contamination"] is None
    reports = told("m18,m4 + GT", "--data", data, "--work", work)
    assert np.array_equal(*map(vectors, reports))
    assert {report["name"]: report["source"] is None for report in reports} == {"m4": True, "m18": False}
    shown = json.loads((work / "models/retrievers/m18/card.json").read_text())
    assert shown["trained_on_said"] == "unknown"


def test_other_vectors_of_the_same_boxes_have_another_address(data: Path, work: Path) -> None:
    out = work / "out"
    ok("embed", "m4,m9 + GT", "--data", data, "--work", work, "--out", out)
    common = ("--boxes", out / "boxes.json", "--data", data, "--work", work)
    ok("enter", "embeddings", "m18", "--vectors", out / "m4.npy", *common)
    before = told("m18 + GT", "--data", data, "--work", work)[0]
    ok("enter", "embeddings", "m18", "--vectors", out / "m9.npy", *common)
    after = told("m18 + GT", "--data", data, "--work", work)[0]
    assert after["address"] != before["address"]
    assert np.array_equal(vectors(after), np.load(out / "m9.npy"))
    assert len(list((work / "models/retrievers/m18").glob("*.npy"))) == 1


def test_a_model_that_saw_the_split_is_ranked_apart(data: Path, work: Path) -> None:
    out = work / "out"
    ok("embed", "m4 + GT", "--data", data, "--work", work, "--out", out)
    said = ok("enter", "embeddings", "m18", "--vectors", out / "m4.npy", "--boxes", out / "boxes.json",
              "--data", data, "--work", work, "--saw", "train", "--saw", "validation")  # fmt: skip
    assert "rows on train, validation are ranked apart" in said
    assert score("m18,m4 + GT", data, work)["contamination"] == "trained on validation: m18"
    result = call("enter", "embeddings", "m18", "--vectors", out / "m4.npy", "--boxes", out / "boxes.json",
                  "--data", data, "--work", work, "--saw", "all")  # fmt: skip
    assert result.exit_code == 2
    assert "--saw" in result.output


def test_names_that_cannot_be_taken(data: Path, work: Path) -> None:
    out = work / "out"
    ok("embed", "m4 + GT", "--data", data, "--work", work, "--out", out)
    files = ("--vectors", out / "m4.npy", "--boxes", out / "boxes.json", "--data", data, "--work", work)
    shutil.copytree(work / "models/retrievers/m9", work / "models/retrievers/ours")
    assert "is a model with weights of its own" in refused("enter", "embeddings", "ours", *files)
    assert "there is a retriever ours here already" in refused("enter", "embeddings", "Ours", *files)
    for name in ("m9", "M18", "a b", "1st", "m4-x", "histogram", "../up", ""):
        assert f"model name {name!r}: expected a letter" in refused("enter", "embeddings", name, *files)


def test_boxes_that_were_not_entered_are_named(data: Path, work: Path) -> None:
    out = work / "out"
    ok("embed", "m4 + GT", "--data", data, "--work", work, "--out", out)
    rows = json.loads((out / "boxes.json").read_text())
    (out / "fewer.json").write_text(json.dumps(rows[2:]))
    np.save(out / "fewer.npy", np.load(out / "m4.npy")[2:])
    ok("enter", "embeddings", "m18", "--vectors", out / "fewer.npy", "--boxes", out / "fewer.json",
       "--data", data, "--work", work)  # fmt: skip
    message = refused("score", "m18 + GT", "--data", data, "--work", work)
    assert f"2 of {len(rows):,} boxes of GT on validation are not among those entered for m18" in message
    assert f"in photo {rows[0]['image_id']}" in message
    # The rest, as a second pair of files.
    (out / "two.json").write_text(json.dumps([{"image_id": row["image_id"], "bbox": row["bbox"]} for row in rows[:2]]))
    np.save(out / "two.npy", 3 * np.load(out / "m4.npy")[:2].astype(np.float64))
    ok("enter", "embeddings", "m18", "--vectors", out / "two.npy", "--boxes", out / "two.json",
       "--data", data, "--work", work)  # fmt: skip
    assert np.allclose(vectors(told("m18 + GT", "--data", data, "--work", work)[0]), np.load(out / "m4.npy"), atol=1e-3)
    # Embeddings of other splits are of no use.
    assert "0 of validation" not in message
    assert "not among those entered" in refused("embed", "m18 + GT", "--data", data, "--work", work, "--split", "train")


@pytest.mark.parametrize("text", ["[]", "3", '"entered"', "{}", '{"kind": "entered", "name": "m18"}'])
def test_a_damaged_card_is_named(text: str, data: Path, work: Path) -> None:
    folder = work / "models" / "retrievers" / "m18"
    folder.mkdir()
    (folder / "card.json").write_text(text)
    message = refused("embed", "m18 + GT", "--data", data, "--work", work)
    assert f"{folder / 'card.json'}: is damaged" in message


def test_new_boxes_cannot_be_judged_by_entered_embeddings(data: Path, work: Path) -> None:
    out = work / "out"
    ok("embed", "m4 + GT", "--data", data, "--work", work, "--out", out)
    ok("enter", "embeddings", "m18", "--vectors", out / "m4.npy", "--boxes", out / "boxes.json",
       "--data", data, "--work", work)  # fmt: skip
    ok("train", "detector", "ATSS", "--data", data, "--work", work, "--scale", "tiny", "--steps", 1, "--hold-out")
    message = refused("tune", "fusion", "--data", data, "--work", work, "--models", "m18", "--boxes", "WBF_1")
    assert "the embeddings of m18 were made elsewhere" in message
