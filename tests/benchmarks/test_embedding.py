"""Four models in one pass over the photos against a pass each, both in one run, and what each part of a pass costs.

An ensemble has up to 18 models, and a photo of a camera takes longer to decode than a small network takes for its
garments. What is timed starts at boxes and ends at float16 rows. Two boxes a photo, as DeepFashion2's annotations have.
Groups are by size of the photos; read the medians of a group against one another.
"""

from pathlib import Path

import cv2
import numpy as np
import pytest

from harness.data import photos
from harness.retrieval.card import RetrieverCard
from harness.retrieval.cgd import CGD
from harness.retrieval.embedding import Retriever, embed
from harness.retrieval.prefetch import crops_ahead
from harness.retrieval.recipes import load_recipes
from harness.types import Detections, Photos, Split
from harness.workers import available_cores

NAMES = ("m0", "m4", "m9", "m17")
SIDES_PX = (1600, 400)
PHOTOS, BOXES_A_PHOTO = 96, 2


@pytest.fixture(scope="module")
def retrievers() -> list[Retriever]:
    """The tiny networks as they are drawn, at crops of 64 px and, for one, of 96: what they find does not matter."""
    import torch

    found = []
    for number, name in enumerate(NAMES):
        recipe = load_recipes()[name].tiny
        recipe = recipe.model_copy(update={"input_wh": (96, 96) if number == 0 else recipe.input_wh})
        torch.manual_seed(number)
        network = CGD(
            recipe.backbone,
            recipe.descriptors,
            recipe.output_dim,
            backbone_options=recipe.backbone_options,
            remove_last_stride=recipe.remove_last_stride,
        )
        network = network.to(memory_format=torch.channels_last).eval()
        card = RetrieverCard.model_construct(name=name, recipe=recipe)
        found.append(Retriever(card, network, torch.device("cpu")))
    return found


@pytest.fixture(scope="module", params=SIDES_PX)
def world(request, tmp_path_factory) -> tuple[int, Split, Detections]:
    """Photos of smooth shapes under noise, 3:4, in JPEG of quality 90; boxes of a third of the sides."""
    side: int = request.param
    root = tmp_path_factory.mktemp(f"photos{side}")
    (root / "validation" / "image").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(1, PHOTOS + 1):
        coarse = rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)
        smooth = cv2.resize(coarse, (side * 3 // 4, side), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        photo = np.clip(smooth + rng.integers(-6, 7, smooth.shape, dtype=np.int16), 0, 255).astype(np.uint8)
        path = root / "validation" / "image" / f"{number:06d}.jpg"
        cv2.imwrite(str(path), photo, [cv2.IMWRITE_JPEG_QUALITY, 90])
    count = PHOTOS * BOXES_A_PHOTO
    low = rng.uniform(0, 0.6, (count, 2)) * [side * 3 / 4, side]
    corners = np.concatenate([low, low + np.array([side / 4, side / 3])], axis=1)
    ids, ones = np.arange(1, PHOTOS + 1), np.ones(count)
    split = Split(root, "validation", Photos(ids, np.zeros(PHOTOS, bool)), None, "")
    return side, split, Detections(np.repeat(ids, BOXES_A_PHOTO), corners, ones, ones.astype(np.int64))


@pytest.fixture(params=sorted({1, available_cores()}))
def num_threads(request) -> int:
    return int(request.param)


def run(benchmark, side: int, what) -> object:
    benchmark.group = f"{len(NAMES)} models on {PHOTOS} photos of {side} px"
    return benchmark.pedantic(what, rounds=5, warmup_rounds=1)


def test_one_pass(benchmark, world, retrievers, num_threads) -> None:
    side, split, boxes = world
    found = run(benchmark, side, lambda: embed(retrievers, split, boxes, num_threads=num_threads))
    for one in retrievers:
        assert np.array_equal(found[one.name], embed([one], split, boxes)[one.name])


def test_baseline_a_pass_each(benchmark, world, retrievers, num_threads) -> None:
    side, split, boxes = world
    run(benchmark, side, lambda: [embed([one], split, boxes, num_threads=num_threads) for one in retrievers])


def test_part_decoding(benchmark, world) -> None:
    side, split, _ = world
    paths: list[Path] = [split.photo_path(number) for number in range(1, PHOTOS + 1)]
    run(benchmark, side, lambda: [photos.decode_rgb(path) for path in paths])


def test_part_decoding_and_cutting(benchmark, world, retrievers) -> None:
    side, split, boxes = world
    sizes = list(dict.fromkeys((one.input_wh, one.margin) for one in retrievers))
    run(benchmark, side, lambda: list(crops_ahead(split, boxes, sizes, 1)))


def test_part_networks(benchmark, world, retrievers) -> None:
    side, _, boxes = world
    crops = {one.input_wh: np.zeros((len(boxes), *one.input_wh[::-1], 3), np.uint8) for one in retrievers}
    run(benchmark, side, lambda: [one.embed(crops[one.input_wh]) for one in retrievers])
