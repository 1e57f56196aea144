import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data import photos
from harness.data.crops import crop
from harness.retrieval import prefetch
from harness.retrieval.embedding import CHUNK, Retriever, embed
from harness.retrieval.histogram import ColourHistogram
from harness.types import Detections, Embeddings, InputError


@pytest.fixture(scope="module")
def retriever(trained) -> Retriever:
    return Retriever.load(trained, device="cpu")


@pytest.fixture(scope="module")
def boxes(validation_split) -> Detections:
    truth = validation_split.items.as_detections()
    return truth.take(np.random.default_rng(0).permutation(len(truth)))


def noise(count: int, wh=(32, 48)) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, wh[1], wh[0], 3), dtype=np.uint8)


def test_a_loaded_model_says_what_it_takes(retriever):
    assert (retriever.name, retriever.dimensions, retriever.input_wh) == ("m12", 16, (32, 48))
    assert retriever.margin == retriever.card.recipe.margin


def test_embeddings_do_not_depend_on_their_neighbours(retriever):
    crops = noise(CHUNK + 9)
    together = retriever.embed(crops)
    assert together.dtype == np.float32
    assert np.abs(np.linalg.norm(together, axis=1) - 1).max() < 1e-5
    assert np.array_equal(together[::-1], retriever.embed(crops[::-1]))
    for row in (0, CHUNK, CHUNK + 8):
        assert np.array_equal(retriever.embed(crops[row : row + 1])[0], together[row])
    assert retriever.embed(crops[:0]).shape == (0, 16)


def test_flip_averaging_cannot_tell_mirror_images_apart(trained, retriever):
    both = Retriever.load(trained, device="cpu", flip=True)
    crops = noise(3)
    mirrored = np.ascontiguousarray(crops[:, :, ::-1])
    assert np.allclose(both.embed(crops), both.embed(mirrored), atol=1e-6)
    assert not np.allclose(retriever.embed(crops), retriever.embed(mirrored), atol=1e-3)


@pytest.mark.parametrize("crops", [noise(2).astype(np.float32), noise(2, (48, 32)), noise(2)[0]])
def test_other_crops_are_refused(retriever, crops):
    with pytest.raises(ValueError, match=r"expected uint8 crops of shape \(B, 48, 32, 3\)"):
        retriever.embed(crops)


def test_rows_are_aligned_with_the_boxes(retriever, boxes, validation_split):
    seen = []
    vectors = embed([retriever], validation_split, boxes, batch_size=7, progress=lambda *now: seen.append(now))["m12"]
    assert vectors.dtype == np.float16
    Embeddings("m12", vectors)  # validates the lengths
    for row in (0, 17, len(boxes) - 1):
        photo = photos.decode_rgb(validation_split.photo_path(int(boxes.image_ids[row])))
        one = crop(photo, boxes.boxes_xyxy[row], (32, 48), retriever.margin)
        assert np.array_equal(retriever.embed(one[None])[0].astype(np.float16), vectors[row])
    assert seen[0] == (7, 80)
    assert seen[-1] == (80, 80)


@pytest.mark.parametrize(("batch_size", "num_threads"), [(1, 1), (33, 1), (500, 3)])
def test_batches_and_threads_do_not_change_the_result(retriever, boxes, validation_split, batch_size, num_threads):
    few = boxes.take(slice(0, 40))
    expected = embed([retriever], validation_split, few)["m12"]
    got = embed([retriever], validation_split, few, batch_size=batch_size, num_threads=num_threads)["m12"]
    assert np.array_equal(got, expected)


def test_each_photo_is_decoded_once_for_all_models(retriever, boxes, validation_split, monkeypatch):
    decoded = []
    whole = photos.decode_rgb
    monkeypatch.setattr(photos, "decode_rgb", lambda path: decoded.append(path) or whole(path))
    vectors = embed([retriever, ColourHistogram()], validation_split, boxes)
    assert len(decoded) == len(set(decoded)) == len(set(boxes.image_ids.tolist()))
    assert {name: one.shape for name, one in vectors.items()} == {"m12": (80, 16), "histogram": (80, 512)}


def test_no_boxes_and_no_models(retriever, boxes, validation_split):
    assert embed([retriever], validation_split, Detections.empty())["m12"].shape == (0, 16)
    assert embed([], validation_split, boxes) == {}


def test_a_training_that_diverged_is_named(trained, boxes, validation_split):
    broken = Retriever.load(trained, device="cpu")
    with torch.no_grad():
        broken._network.projections[0].weight.fill_(float("nan"))
    with pytest.raises(InputError, match="retriever m12: the embedding of box row"):
        embed([broken], validation_split, boxes)


def test_too_little_memory_is_named(trained, boxes, validation_split, monkeypatch):
    model = Retriever.load(trained, device="cpu")

    def full(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model, "_embed_chunk", full)
    with pytest.raises(InputError, match="retriever m12: cpu has too little memory for 64 crops of 32 x 48 px at once"):
        embed([model], validation_split, boxes)


def test_boxes_that_show_the_same_pixels_are_embedded_once(retriever, boxes, validation_split, monkeypatch):
    """Under several categories, or apart by less than a pixel; the nearest that differs has a row of its own."""
    one = boxes.take([0])
    moved = Detections(one.image_ids, one.boxes_xyxy + np.array([3, 0, 3, 0]), one.scores, one.category_ids)
    again = Detections(one.image_ids, one.boxes_xyxy, one.scores, one.category_ids % 13 + 1)
    some = Detections.concatenate([one, boxes.take([5]), again, moved, one])
    expected = [embed([retriever], validation_split, some.take([row]))["m12"][0] for row in range(5)]
    seen = []
    whole = retriever.embed
    monkeypatch.setattr(retriever, "embed", lambda crops: seen.append(len(crops)) or whole(crops))
    found = embed([retriever], validation_split, some)["m12"]
    assert seen == [3]
    assert np.array_equal(found, expected)
    assert not np.array_equal(found[0], found[3])


def test_models_of_other_margins_tell_more_boxes_apart(retriever, boxes, validation_split):
    """Two boxes may show the same pixels without a margin and others with one."""

    class Wide(ColourHistogram):
        name, margin = "wide", 0.3

    one = boxes.take([0])
    nudged = Detections(one.image_ids, one.boxes_xyxy + np.array([0.2, 0.2, -0.2, -0.2]), one.scores, one.category_ids)
    both = Detections.concatenate([one, nudged])
    found = embed([ColourHistogram(), Wide()], validation_split, both)
    for name, model in (("histogram", ColourHistogram()), ("wide", Wide())):
        alone = [embed([model], validation_split, both.take([row]))[name][0] for row in range(2)]
        assert np.array_equal(found[name], alone)


@pytest.mark.parametrize("limit", [1, 20_000])
def test_few_crops_wait_and_a_broken_photo_stops_the_rest(
    limit, retriever, boxes, validation_split, monkeypatch, tmp_path
):
    monkeypatch.setattr(prefetch, "MOST_AHEAD_BYTES", limit)
    expected = embed([retriever], validation_split, boxes, num_threads=1)["m12"]
    assert np.array_equal(embed([retriever], validation_split, boxes, num_threads=4)["m12"], expected)
    shutil.copytree(validation_split.root, tmp_path / "data")
    broken = replace(validation_split, root=tmp_path / "data")
    broken.photo_path(3).write_bytes(b"")
    decoded = []
    whole = photos.decode_rgb
    monkeypatch.setattr(photos, "decode_rgb", lambda path: decoded.append(path) or whole(path))
    with pytest.raises(InputError, match=r"000003\.jpg: is empty"):
        embed([retriever], broken, boxes, num_threads=2)
    assert len(decoded) < 20


def test_two_models_of_one_name(retriever, boxes, validation_split):
    with pytest.raises(InputError, match="name comes twice in m12, m12"):
        embed([retriever, retriever], validation_split, boxes)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"num_threads": 0}])
def test_sizes_are_checked(retriever, boxes, validation_split, wrong):
    with pytest.raises(ValueError, match="at least 1"):
        embed([retriever], validation_split, boxes, **wrong)


def test_loading_what_is_not_there(trained, tmp_path: Path):
    with pytest.raises(InputError, match="there is no trained model"):
        Retriever.load(tmp_path)
    shutil.copytree(trained, tmp_path / "m")
    (tmp_path / "m/weights.pt").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"not the weights that card\.json speaks of"):
        Retriever.load(tmp_path / "m")


def test_histogram_of_a_hand_made_crop():
    one = np.zeros((1, 8, 8, 3), np.uint8)
    one[:, :, 4:] = (255, 0, 128)
    vector = ColourHistogram(bins=2, input_wh=(8, 8)).embed(one)[0]
    # Half of the pixels are black (cell 0), half red with blue at the upper half of its range (cell 4 + 1).
    assert np.allclose(vector, np.sqrt([0.5, 0, 0, 0, 0, 0.5, 0, 0]))


def test_histogram_ignores_the_rim_and_keeps_unit_length():
    crops = noise(5, (64, 64))
    histogram = ColourHistogram()
    vectors = histogram.embed(crops)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    framed = crops.copy()
    framed[:, :8] = framed[:, -8:] = framed[:, :, :8] = framed[:, :, -8:] = 0
    assert np.array_equal(histogram.embed(framed), vectors)
    assert histogram.embed(crops[:0]).shape == (0, 512)


@pytest.mark.parametrize("bins", [0, 257])
def test_histogram_bins_are_checked(bins):
    with pytest.raises(ValueError, match="bins"):
        ColourHistogram(bins=bins)
