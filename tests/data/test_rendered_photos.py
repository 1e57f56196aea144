"""What rendered photos show: causes behind attributes, plain shop walls, visible styles, hard look-alikes."""

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.rendered.garments import NUM_LANDMARKS, shape_of
from harness.data.rendered.measurement import measure
from harness.data.rendered.patterns import cloth
from harness.data.rendered.photo import take_photo
from harness.data.rendered.plan import PhotoPlan, RenderSettings, Worn, photos_of
from harness.data.rendered.silhouette import Pose
from harness.data.rendered.wardrobe import PATTERNS, Garment, draw_garment, draw_style

SETTINGS = RenderSettings(seed=1, num_train=2, num_validation=300, num_test=2)


@pytest.fixture(scope="module")
def photos() -> list[tuple[PhotoPlan, np.ndarray, dict]]:
    plans = photos_of(SETTINGS, "validation")
    return [(plan, *decoded(*take_photo(plan))) for plan in plans]


def decoded(content: bytes, annotation: dict) -> tuple[np.ndarray, dict]:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), annotation


def disc(garment_seed: int, category_id: int = 1) -> Garment:
    return draw_garment(np.random.default_rng(garment_seed), category_id)


# ----- measuring: cases worked by hand on a 20 × 10 photo


def measured(visible: np.ndarray, silhouette: np.ndarray | None = None, landmarks: list | None = None) -> dict:
    marks = np.array(landmarks or [[4.0, 4.0]])
    found = measure(visible, visible if silhouette is None else silhouette, marks, 2)
    assert found is not None
    return found


def block(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros((10, 20), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def test_box_is_tight() -> None:
    assert measured(block(3, 2, 11, 8))["bounding_box"] == [3, 2, 11, 8]


@pytest.mark.parametrize("width, scale", [(4, 2), (5, 2), (9, 3), (20, 3)])
def test_scale_grows_with_the_visible_share(width: int, scale: int) -> None:
    assert measured(block(0, 2, width, 9))["scale"] == scale  # 7 rows of 10: 14, 17.5, 31.5, 70 %


def test_a_small_garment_is_of_scale_1() -> None:
    assert measured(block(3, 3, 9, 6))["scale"] == 1  # 18 of 200 pixels
    assert measured(block(3, 3, 8, 7))["scale"] == 2  # 20 of 200 pixels: at the limit


@pytest.mark.parametrize("hidden, occlusion", [(0, 1), (1, 2), (3, 2), (4, 3)])
def test_occlusion_grows_with_the_covered_share(hidden: int, occlusion: int) -> None:
    assert measured(block(hidden, 0, 10, 10), block(0, 0, 10, 10))["occlusion"] == occlusion


def test_covered_landmarks_raise_the_occlusion() -> None:
    visible, silhouette = block(0, 0, 19, 10), block(0, 0, 20, 10)
    visible[:, 12:17], silhouette[:, 12:17] = False, True
    found = measured(visible, silhouette, [[14.0, 5.0], [14.0, 2.0], [3.0, 3.0]])
    assert found["landmarks"] == [14, 5, 1, 14, 2, 1, 3, 3, 2]
    assert found["occlusion"] == 3


@pytest.mark.parametrize("num_outside, zoom_in", [(0, 1), (1, 2), (3, 2), (4, 3), (10, 3)])
def test_zoom_in_grows_with_the_landmarks_outside(num_outside: int, zoom_in: int) -> None:
    marks = [[-5.0, 4.0]] * num_outside + [[4.0, 4.0]] * (10 - num_outside)
    found = measured(block(0, 0, 10, 10), landmarks=marks)
    assert found["zoom_in"] == zoom_in
    assert found["landmarks"][2::3] == [0] * num_outside + [2] * (10 - num_outside)


def test_a_garment_that_is_hardly_seen_is_not_annotated() -> None:
    assert measure(np.zeros((10, 20), bool), block(0, 0, 9, 9), np.zeros((3, 2)), 2) is None


# ----- shapes


@given(category_id=st.integers(1, 13), seed=st.integers(0, 10**6), back=st.booleans(), flat=st.booleans())
def test_every_identity_has_its_categorys_landmarks(category_id: int, seed: int, back: bool, flat: bool) -> None:
    garment = disc(seed, category_id)
    shape = shape_of(garment, Pose((0.3, 0.2), (0.1, -0.2), (0.1, 0.0), back=back and not flat, flat=flat))
    assert shape.landmarks.shape == (NUM_LANDMARKS[category_id - 1], 2)
    assert np.isfinite(shape.landmarks).all()
    outline = np.concatenate([part.outline for part in shape.parts])
    assert (shape.landmarks >= outline.min(0) - 0.1).all()
    assert (shape.landmarks <= outline.max(0) + 0.1).all()


def test_sleeves_and_hems_tell_the_categories_apart() -> None:
    pose = Pose((0.2, 0.2), (0.2, 0.2), (0.05, 0.05))
    reach = {c: shape_of(disc(c, c), pose).landmarks.max(0) for c in range(1, 14)}
    for short, long in ((1, 2), (3, 4), (10, 11)):
        sleeve = {c: np.ptp(shape_of(disc(7, c), pose).landmarks[6:11, 1]) for c in (short, long)}
        assert sleeve[short] < 0.62 * max(0.9, sleeve[long])
    assert all(reach[dress][1] > 1.5 for dress in (10, 11, 12, 13))
    assert all(reach[top][1] < 1.2 for top in (1, 5, 6))
    assert reach[7][1] < reach[8][1]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_cloth_shows_its_pattern(pattern: str) -> None:
    garment = dataclasses.replace(disc(5), pattern=pattern, repeats=4, direction=1, duty=0.5)
    tile, border = cloth(garment)
    assert tile.shape == (128, 128, 3)
    assert (np.ptp(tile.reshape(-1, 3), axis=0).max() > 0) == (pattern not in ("plain", "print"))
    if border == cv2.BORDER_WRAP and pattern != "plain":
        seam = np.abs(tile[:, 0].astype(int) - tile[:, -1].astype(int)).mean()
        inside = np.abs(np.diff(tile.astype(int), axis=1)).mean(axis=(0, 2)).max()
        assert seam <= inside + 1, "the tile does not repeat without a seam"


@given(category_id=st.integers(1, 13), seed=st.integers(0, 10**6))
def test_styles_share_the_cut_and_differ_in_cloth(category_id: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    garment = draw_garment(rng, category_id)
    style = draw_style(rng, garment)
    assert (style.palette, style.pattern) != (garment.palette, garment.pattern)
    for name in ("category_id", "neckline", "sleeve", "hem", "fit", "buttons"):
        assert getattr(style, name) == getattr(garment, name)


def test_styles_differ_to_the_eye() -> None:
    rng = np.random.default_rng(0)
    differences = []
    for category_id in range(1, 14):
        garment = draw_garment(rng, category_id)
        shots = []
        for worn in (garment, draw_style(rng, garment)):
            plan = PhotoPlan(1, False, 1, (Worn(worn, 1),), (0, 0, 0, category_id))
            image, annotation = decoded(*take_photo(plan))
            x1, y1, x2, y2 = annotation["item1"]["bounding_box"]
            shots.append(cv2.resize(image[y1:y2, x1:x2], (48, 48), interpolation=cv2.INTER_AREA).astype(float))
        differences.append(np.abs(shots[0] - shots[1]).mean())
    assert min(differences) > 3
    assert np.median(differences) > 12


# ----- photos


def test_shop_walls_are_plain_and_consumer_rooms_are_not(photos: list) -> None:
    spread: dict[bool, list[float]] = {True: [], False: []}
    for plan, image, annotation in photos:
        x1 = min(annotation[key]["bounding_box"][0] for key in annotation if key.startswith("item"))
        if x1 >= 8:
            strip = cv2.GaussianBlur(image, (5, 5), 0)[: image.shape[0] // 4, : x1 // 2]
            spread[plan.is_consumer].append(float(strip.reshape(-1, 3).std(0).mean()))
    assert len(spread[True]) > 20
    assert len(spread[False]) > 20
    assert np.quantile(spread[False], 0.9) < 4
    assert np.median(spread[True]) > 6


def test_shop_photos_are_frontal_or_flat(photos: list) -> None:
    for plan, _, annotation in photos:
        if not plan.is_consumer:
            assert annotation["item1"]["viewpoint"] in (1, 2)


def test_attributes_take_all_values_and_consumers_have_the_harder_ones(photos: list) -> None:
    values: dict[tuple[str, bool], list[int]] = {}
    for plan, _, annotation in photos:
        for name in ("scale", "occlusion", "zoom_in", "viewpoint"):
            values.setdefault((name, plan.is_consumer), []).append(annotation["item1"][name])
    for name in ("scale", "occlusion", "zoom_in", "viewpoint"):
        assert set(values[name, True]) | set(values[name, False]) == {1, 2, 3}
    for name in ("occlusion", "zoom_in", "viewpoint"):
        assert np.mean(values[name, True]) > np.mean(values[name, False])


def test_cover_lies_where_the_annotation_says_covered(photos: list) -> None:
    """Landmarks marked visible lie on or beside their polygon, covered ones mostly do not."""
    away: dict[int, list[float]] = {1: [], 2: []}
    for _, _, annotation in photos:
        for key in (key for key in annotation if key.startswith("item")):
            polygons = [
                np.reshape(polygon, (-1, 1, 2)).astype(np.float32) for polygon in annotation[key]["segmentation"]
            ]
            marks = np.reshape(annotation[key]["landmarks"], (-1, 3))
            for x, y, v in marks[marks[:, 2] > 0].tolist():
                away[v].append(-max(cv2.pointPolygonTest(p, (x, y), True) for p in polygons))
    assert np.quantile(away[2], 0.98) < 4
    assert np.median(away[1]) > np.quantile(away[2], 0.95)


def test_garments_fill_a_fair_share_of_their_photo(photos: list) -> None:
    shares = []
    for _, image, annotation in photos:
        x1, y1, x2, y2 = annotation["item1"]["bounding_box"]
        shares.append((x2 - x1) * (y2 - y1) / (image.shape[0] * image.shape[1]))
    assert np.quantile(shares, 0.05) > 0.06
    assert 0.2 < np.median(shares) < 0.6


def _histogram_hits(photos: list, describe: Callable[[np.ndarray], np.ndarray]) -> float:
    rows: dict[bool, list[tuple[tuple[int, int], np.ndarray]]] = {True: [], False: []}
    for plan, image, annotation in photos:
        for key in (key for key in annotation if key.startswith("item")):
            x1, y1, x2, y2 = annotation[key]["bounding_box"]
            histogram = np.sqrt(cv2.calcHist([describe(image[y1:y2, x1:x2])], [0, 1, 2], None, [8] * 3, [0, 256] * 3))
            rows[plan.is_consumer].append(
                ((plan.pair_id, annotation[key]["style"]), histogram.ravel() / np.sqrt(histogram.sum() ** 2 + 1e-9))
            )
    gallery = np.array([vector / np.linalg.norm(vector) for _, vector in rows[False]])
    names = [name for name, _ in rows[False]]
    hits = []
    for name, vector in rows[True]:
        if name[1] and name in names:
            best = np.argsort(-(gallery @ vector), kind="stable")[: round(len(gallery) / 60)]
            hits.append(name in [names[row] for row in best])
    assert len(hits) > 80
    return float(np.mean(hits))


@pytest.mark.parametrize("space", [None, cv2.COLOR_BGR2HSV_FULL])
def test_colour_alone_does_not_find_the_garment(photos: list, space: int | None) -> None:
    """The best sixtieth of the gallery, as ten are of about 600: a histogram finds some, not many."""
    found = _histogram_hits(photos, lambda crop: crop if space is None else cv2.cvtColor(crop, space))
    assert 0.03 < found <= 0.40
