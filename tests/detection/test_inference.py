from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from harness.data.photos import decode_rgb
from harness.detection import inference, placement, prefetch
from harness.detection.bridge import Network
from harness.detection.inference import Detector, detect, detect_together
from harness.detection.inference_settings import InferenceSettings
from harness.detection.recipes import load_recipes
from harness.detection.test_time_augmentation import PhotoBoxes, View, merged, views
from harness.detection.training import train
from harness.types import InputError


def recipe(name):
    shipped = load_recipes()[name]
    short = {"batch_size": 2, "num_steps": 4, "pretraining": None}
    return shipped.model_copy(update={"tiny": shipped.tiny.model_copy(update=short)})


@pytest.fixture(scope="module")
def folders(split, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for name in ("ATSS", "CascadeMaskRCNN", "CenterNet"):
        train(recipe(name), "tiny", split, split.photos.image_ids, root / name, seed=3)
    return {name: root / name for name in ("ATSS", "CascadeMaskRCNN", "CenterNet")}


def same_boxes(one, other, px=1e-3):
    assert one.image_ids.tolist() == other.image_ids.tolist()
    assert one.category_ids.tolist() == other.category_ids.tolist()
    np.testing.assert_allclose(one.boxes_xyxy, other.boxes_xyxy, atol=px)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


def test_together_they_find_what_each_finds_alone(folders, split):
    detectors = [Detector.load(folders[name]) for name in ("ATSS", "CascadeMaskRCNN")]
    together = detect_together(detectors, split, split.photos.image_ids, batch_size=3, num_threads=2)
    for detector, found in zip(detectors, together, strict=True):
        same_boxes(found, detect(detector, split, split.photos.image_ids))
    assert len(together[0]) > 0


def test_a_photo_is_decoded_once_for_all(folders, split, monkeypatch):
    seen = []
    monkeypatch.setattr(prefetch, "decode_rgb", lambda path: seen.append(path) or decode_rgb(path))
    detectors = [Detector.load(folders["ATSS"]), Detector.load(folders["ATSS"], settings=InferenceSettings(flip=True))]
    detect_together(detectors, split, split.photos.image_ids)
    assert sorted(seen) == [split.photo_path(int(one)) for one in split.photos.image_ids]


def test_batches_are_full_and_the_order_is_kept(folders, split, monkeypatch):
    detector, sizes = Detector.load(folders["ATSS"]), []
    look = detector.look
    monkeypatch.setattr(detector, "look", lambda view, photos, wh: sizes.append(len(photos)) or look(view, photos, wh))
    ids = split.photos.image_ids[::-1]
    found = detect(detector, split, ids, batch_size=3)
    # Of the 12 photos 3 are 64 x 110, which goes into 96 x 64; the others share one canvas.
    assert sizes == [3, 3, 3, 3]
    assert list(dict.fromkeys(found.image_ids.tolist())) == [one for one in ids.tolist() if one in found.image_ids]
    same_boxes(found, detect(detector, split, ids, batch_size=1))


def test_the_canvas_is_the_smallest_multiple_of_32():
    assert placement.snug_canvas_hw(np.zeros((800, 1067, 3), np.uint8)) == (800, 1088)
    assert placement.snug_canvas_hw(np.zeros((96, 1, 3), np.uint8)) == (96, 32)
    laid = placement.laid_snugly(np.full((33, 32, 3), 7, np.uint8), (1, 2, 3))
    assert laid.shape == (64, 32, 3)
    assert (laid[:33] == 7).all()
    assert (laid[33:] == (1, 2, 3)).all()


def test_photos_are_read_ahead_but_not_far(split, monkeypatch):
    started, lock = [], threading.Lock()

    def slow(path):
        with lock:
            started.append(path)
        return decode_rgb(path)

    monkeypatch.setattr(prefetch, "decode_rgb", slow)
    paths = [split.photo_path(1)] * 100
    photos = prefetch.fitted_photos(paths, [(96, 96)], 2)
    first = next(photos)
    time.sleep(0.3)  # the threads have nothing left to do
    assert first.at[96, 96].shape == placement.resized(decode_rgb(paths[0]), (96, 96)).shape
    assert len(started) <= 10
    photos.close()
    assert len(started) <= 10
    assert len(list(prefetch.fitted_photos(paths, [(96, 96)], 3))) == 100


# --- several views ------------------------------------------------------------------------------


def test_the_views_of_settings():
    assert views(InferenceSettings(), (1333, 800)) == (View((1333, 800), False),)
    both = views(InferenceSettings(flip=True, scales=(2, 0.5)), (96, 64))
    assert both == (View((48, 32), False), View((48, 32), True), View((192, 128), False), View((192, 128), True))
    assert views(InferenceSettings(scales=(0.25,)), (96, 64)) == (View((32, 32), False),)


def test_a_mirrored_view_finds_mirrored_boxes(folders, split):
    detector = Detector.load(folders["ATSS"], settings=InferenceSettings(flip=True))
    photo = decode_rgb(split.photo_path(1))
    height, width = photo.shape[:2]
    fitted = placement.resized(photo, (96, 96))
    mirrored = np.ascontiguousarray(fitted[:, ::-1])
    plain, turned = detector.views
    there = detector.look(turned, [fitted], [(width, height)])[0]
    back = detector.look(plain, [mirrored], [(width, height)])[0]
    assert len(back.scores) > 0
    order = np.lexsort((there.boxes_xyxy[:, 1], -there.scores))
    flipped = np.stack([width - back.boxes_xyxy[:, 2], back.boxes_xyxy[:, 1],
                        width - back.boxes_xyxy[:, 0], back.boxes_xyxy[:, 3]], axis=1)  # fmt: skip
    np.testing.assert_allclose(there.boxes_xyxy[order], flipped[np.lexsort((flipped[:, 1], -back.scores))], atol=1e-3)


def test_merging_by_hand():
    one = PhotoBoxes(np.array([[0.0, 0, 10, 20], [30, 0, 40, 10]]), np.array([0.8, 0.5]), np.array([1, 2]))
    other = PhotoBoxes(np.array([[0.0, 0, 12, 20]]), np.array([0.4]), np.array([1]))
    found = merged([one, other], (40, 20), 0.3, 20)
    # 0.8 and 0.4 as weights: x2 = (0.8 * 10 + 0.4 * 12) / 1.2. The second box is seen once in two: 0.25, too low.
    np.testing.assert_allclose(found.boxes_xyxy, [[0, 0, 32 / 3, 20]])
    np.testing.assert_allclose(found.scores, [0.6])
    assert found.category_ids.tolist() == [1]
    assert len(merged([one, other], (40, 20), 0.2, 20).scores) == 2
    assert len(merged([one, other], (40, 20), 0.2, 1).scores) == 1
    assert len(merged([PhotoBoxes.none(), PhotoBoxes.none()], (40, 20), 0.0, 5).scores) == 0


@pytest.mark.parametrize("name", ["ATSS", "CascadeMaskRCNN", "CenterNet"])
def test_all_views_at_once_stay_inside_photo_and_limits(name, folders, split):
    settings = InferenceSettings(flip=True, scales=(0.75, 1.5), score_threshold=0.05, max_per_image=3)
    found = detect(Detector.load(folders[name], settings=settings), split, split.photos.image_ids)
    assert (found.scores >= 0.05).all()
    for image_id in split.photos.image_ids.tolist():
        boxes = found.take(found.image_ids == image_id).boxes_xyxy
        height, width = decode_rgb(split.photo_path(image_id)).shape[:2]
        assert len(boxes) <= 3
        assert (boxes >= 0).all()
        assert (boxes <= [width, height, width, height]).all()


def test_limits_of_the_users(folders, split):
    ids = split.photos.image_ids
    few = detect(Detector.load(folders["ATSS"], settings=InferenceSettings(max_per_image=2)), split, ids)
    assert np.unique(few.image_ids, return_counts=True)[1].max() == 2
    plain = detect(Detector.load(folders["ATSS"]), split, ids)
    middle = float(np.median(plain.scores))
    high = detect(Detector.load(folders["ATSS"], settings=InferenceSettings(score_threshold=middle)), split, ids)
    assert 0 < len(high) < len(plain)
    assert (high.scores >= middle).all()
    low = detect(
        Detector.load(folders["ATSS"], settings=InferenceSettings(score_threshold=0, max_per_image=999)), split, ids
    )
    assert len(low) > len(plain)


# --- precision ----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "16"])
@pytest.mark.parametrize("name", ["ATSS", "CascadeMaskRCNN", "CenterNet"])
def test_half_precision_moves_boxes_a_little(precision, name, folders, split):
    photos = [decode_rgb(split.photo_path(int(one))) for one in split.photos.image_ids[:4]]
    exact = Detector.load(folders[name], settings=InferenceSettings(score_threshold=0)).predict(photos)
    settings = InferenceSettings(score_threshold=0, precision=precision)
    found = Detector.load(folders[name], settings=settings).predict(photos)
    near = []
    for one, other in zip(exact, found, strict=True):
        for box, score in zip(one.boxes_xyxy, one.scores, strict=True):
            away = np.abs(other.boxes_xyxy - box).max(axis=1)
            near.append(bool((np.abs(other.scores[away < 1.5] - score) < 0.03).any()))
    assert np.mean(near) > 0.85
    assert all(boxes.boxes_xyxy.dtype == np.float64 for boxes in found)


@pytest.mark.parametrize("name", ["ATSS", "RetinaNet-R101-FPN"])
def test_boxes_of_large_photos_are_not_made_in_half_precision(name):
    tiny = load_recipes()[name].tiny
    torch.manual_seed(0)
    network = Network(tiny.config, tiny.model)
    network.initialise()
    network.eval().limit(0.0, 1000)
    network.compute_in("bf16")
    photo = torch.randint(0, 255, (1, 640, 512, 3), dtype=torch.uint8)
    found = network.predict(photo, [(640, 512)])[0].boxes_xyxy
    inside = found[(found > 130) & (found < 510)]
    assert len(inside) > 100
    assert float((inside % 1 == 0).float().mean()) < 0.1  # bfloat16 has whole numbers alone there


def test_regions_are_not_cut_out_in_half_precision(folders):
    detector = Detector.load(
        folders["CascadeMaskRCNN"], settings=InferenceSettings(precision="bf16", score_threshold=0)
    )
    seen = []
    for extractor in detector._network.model.roi_head.bbox_roi_extractor:
        for layer in extractor.roi_layers:
            layer.register_forward_pre_hook(lambda _, given: seen.extend(one.dtype for one in given))
    detector.predict([np.random.default_rng(0).integers(0, 255, (96, 96, 3)).astype(np.uint8)])
    assert set(seen) == {torch.float32}


def test_half_precision_is_what_convolutions_compute_in(folders):
    detector = Detector.load(folders["ATSS"], settings=InferenceSettings(precision="bf16"))
    seen = []
    convolution = next(part for part in detector._network.modules() if isinstance(part, torch.nn.Conv2d))
    convolution.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    detector.predict([np.zeros((20, 20, 3), np.uint8)])
    assert seen == [torch.bfloat16]


@pytest.mark.parametrize("precision, remedy", [("32", "train it again"), ("16", "--precision bf16 or 32")])
def test_what_is_not_finite_is_refused(precision, remedy, folders):
    detector = Detector.load(folders["ATSS"], settings=InferenceSettings(precision=precision))
    detector._network.model.bbox_head.atss_cls.bias.data[3] = float("nan")
    with pytest.raises(InputError, match=f"detector ATSS: .* not finite in float.*{remedy}"):
        detector.predict([np.zeros((20, 20, 3), np.uint8)])


def test_too_little_memory_is_told_with_the_remedy(folders, monkeypatch):
    detector = Detector.load(folders["ATSS"])

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(detector._network, "predict", full)
    with pytest.raises(InputError, match=r"ATSS: cpu has too little memory for 2 photos of 96 x 96 .* --batch-size"):
        detector.predict([np.zeros((20, 20, 3), np.uint8)] * 2)


# --- photos and files out of the ordinary --------------------------------------------------------


@pytest.mark.parametrize("name", ["ATSS", "CascadeMaskRCNN", "CenterNet"])
@pytest.mark.parametrize("shape", [(1, 1), (2000, 1), (1, 2000), (3, 4000)])
def test_photos_of_odd_shapes(name, shape, folders):
    detector = Detector.load(folders[name], settings=InferenceSettings(flip=True, scales=(0.5, 1)))
    height, width = shape
    found = detector.predict([np.full((height, width, 3), 255, np.uint8)])[0]
    assert (found.boxes_xyxy >= 0).all()
    assert (found.boxes_xyxy <= [width, height, width, height]).all()


def test_no_garment_no_boxes(folders):
    detector = Detector.load(folders["ATSS"], settings=InferenceSettings(score_threshold=0.99))
    assert [len(one.scores) for one in detector.predict([np.full((50, 40, 3), 255, np.uint8)] * 2)] == [0, 0]


def test_settings_in_words_and_in_the_key():
    tiny = load_recipes()["ATSS"].tiny
    assert InferenceSettings().changes == {}
    assert InferenceSettings(scales=(1,)).changes == {}
    settings = InferenceSettings(flip=True, scales=("1.5", 1), precision="bf16", max_per_image=7)
    assert settings.changes == {"flip": True, "scales": [1.0, 1.5], "precision": "bf16", "max_per_image": 7}
    assert settings.told(tiny) == (
        "scales 1 1.5, with the mirrored photo, bfloat16, scores from 0.03, at most 7 boxes a photo"
    )


@pytest.mark.parametrize(
    "wrong",
    [{"scales": ()}, {"scales": (1, 1)}, {"scales": (0,)}, {"score_threshold": 2}, {"max_per_image": 0}, {"a": 1}],
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="InferenceSettings"):
        InferenceSettings(**wrong)


def test_the_difference_of_weights_is_told():
    there = {"a": torch.zeros(2), "b": torch.zeros(3)}
    assert "1 tensors are missing and 1 are of another network, such as b" in inference._difference(
        there, {"a": torch.zeros(2), "c": torch.zeros(1)}
    )
    assert "b has another shape" in inference._difference(there, {"a": torch.zeros(2), "b": torch.zeros(1)})
    assert "got a list" in inference._difference(there, [1])
