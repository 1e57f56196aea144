"""The store: results are whole or absent, damage is named, an interrupted stage goes on."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from harness.artifacts import ArtifactError, Recipe, Store, read_detections, write_detections
from harness.types import Detections

RECIPE = Recipe("count", 1, {"upto": 3}, {"data": "abc"}, {"m4": "def"})


def make_three(log):
    def make(draft):
        for index in range(3):
            draft.shard(index, ".txt", lambda part, index=index: (log.append(index), part.write_text(str(index))))
        draft.write("all.txt", lambda part: part.write_text("0 1 2"))
        draft.drop_shards()
        return {"count": 3}

    return make


def test_a_result_is_made_once_and_found_again(tmp_path) -> None:
    log: list[int] = []
    first, made = Store(tmp_path).get(RECIPE, make_three(log))
    again, made_again = Store(tmp_path).get(RECIPE, make_three(log))
    assert (made, made_again) == (True, False)
    assert log == [0, 1, 2]
    assert again.path("all.txt").read_text() == "0 1 2"
    assert again.facts == {"count": 3}
    assert sorted(p.name for p in first.folder.iterdir()) == ["all.txt", "manifest.json"]


@pytest.mark.parametrize(
    "other",
    [
        Recipe("counting", 1, {"upto": 3}, {"data": "abc"}, {"m4": "def"}),
        Recipe("count", 2, {"upto": 3}, {"data": "abc"}, {"m4": "def"}),
        Recipe("count", 1, {"upto": 4}, {"data": "abc"}, {"m4": "def"}),
        Recipe("count", 1, {"upto": 3}, {"data": "abd"}, {"m4": "def"}),
        Recipe("count", 1, {"upto": 3}, {"data": "abc"}, {"m4": "deg"}),
    ],
)
def test_everything_that_decides_a_result_is_in_its_address(other) -> None:
    assert other.address != RECIPE.address


def test_the_address_does_not_depend_on_the_order_of_keys() -> None:
    assert Recipe("s", 1, {"a": 1, "b": 2}).address == Recipe("s", 1, {"b": 2, "a": 1}).address


def test_an_interrupted_stage_goes_on_at_the_first_missing_shard(tmp_path) -> None:
    log: list[int] = []

    def stops(draft):
        draft.shard(0, ".txt", lambda part: part.write_text("0"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).get(RECIPE, stops)
    assert Store(tmp_path).find(RECIPE) is None
    Store(tmp_path).get(RECIPE, make_three(log))
    assert log == [1, 2]


def test_a_shard_damaged_between_two_runs_is_made_anew(tmp_path) -> None:
    log: list[int] = []

    def stops(draft):
        draft.shard(0, ".txt", lambda part: part.write_text("0"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).get(RECIPE, stops)
    (Store(tmp_path).folder(RECIPE) / "part-00000.txt").write_text("X")
    Store(tmp_path).get(RECIPE, make_three(log))
    assert log == [0, 1, 2]


def test_a_process_killed_while_it_writes_leaves_nothing_that_counts(tmp_path) -> None:
    script = f"""
        import time
        from pathlib import Path
        from harness.artifacts import Recipe, Store
        def write(part):
            part.write_text("half")
            print("writing", flush=True)
            time.sleep(60)
        Store(Path({str(tmp_path)!r})).get(Recipe("slow", 1), lambda draft: draft.write("all.txt", write) and {{}})
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"writing\n"
        os.kill(child.pid, signal.SIGKILL)
    store = Store(tmp_path)
    assert store.find(Recipe("slow", 1)) is None
    whole, _ = store.get(
        Recipe("slow", 1), lambda draft: draft.write("all.txt", lambda p: p.write_text("whole")) and {}
    )
    assert whole.path("all.txt").read_text() == "whole"
    assert not list(whole.folder.glob("*.part"))


@pytest.mark.parametrize(
    "damage, says",
    [
        (lambda f: (f / "all.txt").write_text("0 1 3"), "its bytes are not those that were written"),
        (lambda f: (f / "all.txt").write_text("0"), "has 1 bytes, expected 5"),
        (lambda f: (f / "all.txt").unlink(), "is missing"),
    ],
)
def test_a_damaged_file_is_named_with_the_remedy(tmp_path, damage, says) -> None:
    result, _ = Store(tmp_path).get(RECIPE, make_three([]))
    damage(result.folder)
    with pytest.raises(ArtifactError, match=says) as caught:
        result.path("all.txt")
    assert str(result.folder / "all.txt") in str(caught.value)
    assert f"remove the folder {result.folder}" in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"recipe": {"stage": "other"}}'])
def test_a_damaged_or_foreign_manifest_is_named(tmp_path, text) -> None:
    result, _ = Store(tmp_path).get(RECIPE, make_three([]))
    (result.folder / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        Store(tmp_path).find(RECIPE)


def test_boxes_come_back_as_they_were(tmp_path) -> None:
    boxes = Detections(
        np.array([2, 1]), np.array([[0, 0.1, 5, 7], [1, 2, 3, 4]]), np.array([0.3, 1]), np.array([1, 13])
    )
    write_detections(tmp_path / "b.parquet", boxes)
    back = read_detections(tmp_path / "b.parquet")
    for name in ("image_ids", "boxes_xyxy", "scores", "category_ids"):
        np.testing.assert_array_equal(getattr(back, name), getattr(boxes, name))


def test_no_boxes_come_back_as_none(tmp_path) -> None:
    write_detections(tmp_path / "b.parquet", Detections.empty())
    assert len(read_detections(tmp_path / "b.parquet")) == 0


def test_a_file_that_holds_no_boxes_is_named(tmp_path) -> None:
    (tmp_path / "b.parquet").write_bytes(b"not parquet")
    with pytest.raises(ArtifactError, match=r"b\.parquet: is not a file of boxes"):
        read_detections(tmp_path / "b.parquet")


def test_results_that_are_missing_are_made_together(tmp_path) -> None:
    store = Store(tmp_path)
    recipes = {name: Recipe("letter", 1, {"name": name}) for name in "abc"}
    passes: list[list[str]] = []

    def make(drafts):
        passes.append(sorted(drafts))
        for name, draft in drafts.items():
            draft.write("letter.txt", lambda part, name=name: part.write_text(name))
        return {name: {} for name in drafts}

    store.get_many({"b": recipes["b"]}, make)
    results, made = store.get_many(recipes, make)
    assert passes == [["b"], ["a", "c"]]
    assert made == {"a", "c"}
    assert [results[name].path("letter.txt").read_text() for name in "abc"] == ["a", "b", "c"]


def test_results_of_a_pass_share_its_seconds_by_what_their_networks_took(tmp_path) -> None:
    from harness.provenance import machine

    def make(drafts):
        time.sleep(0.2)
        return {
            "a": {"network_seconds": 0.03, "waiting_seconds": 0.01},
            "b": {"network_seconds": 0.09, "waiting_seconds": 0.01},
        }

    store = Store(tmp_path)
    found, _ = store.get_many({name: Recipe("pass", 1, {"name": name}) for name in "ab"}, make)
    assert found["b"].seconds - found["a"].seconds == pytest.approx(0.06)
    assert found["a"].waiting_seconds == pytest.approx(0.01)
    assert found["a"].made_on == machine()
    path = found["a"].folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    for key in ("made_on", "waiting_seconds"):  # as earlier versions wrote them
        del manifest[key]
    path.write_text(json.dumps(manifest))
    old = store.find(Recipe("pass", 1, {"name": "a"}))
    assert (old.made_on, old.waiting_seconds) == (None, None)


def test_a_resumed_pass_counts_what_earlier_runs_took(tmp_path) -> None:
    recipe = Recipe("pass", 1, {"name": "a"})

    def interrupted(drafts):
        drafts["a"].shard(0, ".txt", lambda part: part.write_text("0"))
        raise KeyboardInterrupt

    def make(drafts):
        drafts["a"].shard(1, ".txt", lambda part: part.write_text("1"))
        # As its shards tell, of which the first was made by the run before.
        return {"a": {"network_seconds": 1000.0, "waiting_seconds": 10.0}}

    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.get_many({"a": recipe}, interrupted)
    found, _ = store.get_many({"a": recipe}, make)
    assert found["a"].seconds == pytest.approx(1010)
    assert found["a"].waiting_seconds == pytest.approx(10)
    whole, _ = store.get_many({"a": Recipe("pass", 1, {"name": "b"})}, make)
    assert whole["a"].seconds < 10  # several processes at once: the clock on the wall
