import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.data.deepfashion2 import read_items, read_items_of, read_polygons, read_split, with_truth
from harness.data.layout import consumer_mask_of_test
from harness.types import InputError

Edit = Callable[[int, Callable[[dict[str, Any]], None]], Path]


def test_a_split_is_read_in_the_order_of_image_and_item(dataset: Path) -> None:
    split = read_split(dataset, "validation")
    assert split.photos.image_ids.tolist() == [1, 2, 3, 10]
    assert split.photos.is_consumer.tolist() == [True, True, False, False]
    items = split.items
    assert items is not None
    assert items.image_ids.tolist() == [1, 1, 2, 3, 3, 10]
    assert items.item_numbers.tolist() == [1, 2, 1, 1, 2, 1]
    assert items.is_consumer.tolist() == [True, True, True, False, False, False]
    assert items.category_ids.tolist() == [1, 8, 1, 1, 8, 13]
    assert items.styles.tolist() == [1, 2, 0, 1, 2, 1]
    assert items.pair_ids.tolist() == [7, 7, 7, 7, 7, 8]
    assert items.boxes_xyxy[1].tolist() == [5, 20, 30, 45.5]
    assert items.scales.tolist() == [2] * 6
    assert items.viewpoints.tolist() == [2] * 6
    assert split.photo_path(10).is_file()
    assert not split.rendered


def test_items_are_ordered_by_number_not_by_text(dataset: Path, edit: Edit) -> None:
    def eleven(document: dict[str, Any]) -> None:
        for n in range(11, 1, -1):
            document[f"item{n}"] = dict(document["item1"], style=n)

    edit(1, eleven)
    items = read_split(dataset, "validation").items
    assert items is not None
    assert items.item_numbers[:11].tolist() == list(range(1, 12))
    assert items.styles[:11].tolist() == [1, *range(2, 12)]


def test_attributes_may_be_absent(dataset: Path, edit: Edit) -> None:
    edit(1, lambda document: [document["item1"].pop(name) for name in ("scale", "occlusion", "zoom_in", "viewpoint")])
    items = read_split(dataset, "validation").items
    assert items is not None
    assert [column[0] for column in (items.scales, items.occlusions, items.zoom_ins, items.viewpoints)] == [0] * 4


def test_a_photo_without_items_is_taken(dataset: Path, edit: Edit) -> None:
    edit(2, lambda document: document.pop("item1"))
    split = read_split(dataset, "validation")
    assert split.photos.image_ids.tolist() == [1, 2, 3, 10]
    assert split.items is not None
    assert 2 not in split.items.image_ids


def test_the_rendered_mark_is_only_a_label(dataset: Path) -> None:
    before = read_split(dataset, "validation")
    (dataset / "RENDERED.json").write_text("{}")
    after = read_split(dataset, "validation")
    assert after.rendered
    assert after.fingerprint == before.fingerprint


def test_progress_ends_at_the_number_of_files(dataset: Path) -> None:
    calls: list[tuple[int, int]] = []
    read_split(dataset, "validation", progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (4, 4)


def _pop(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for key in path[:-1]:
            document = document[key]
        del document[path[-1]]

    return change


def _put(value: Any, *path: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_pop("source"), 'source: expected "user" or "shop", got no such field'),
        (_put("web", "source"), 'source: expected "user" or "shop", got "web"'),
        (_put(["user"], "source"), "source: expected"),
        (_pop("pair_id"), "pair_id: expected an integer >= 0, got no such field"),
        (_put("7", "pair_id"), 'pair_id: expected an integer >= 0, got "7"'),
        (_put(-1, "pair_id"), "pair_id: expected"),
        (_put(2**60, "pair_id"), "pair_id: expected"),
        (_put([], "item2"), "item2: expected an object, got a list"),
        (_put({}, "itemX"), "itemX: expected a key such as item1"),
        (_put({}, "item0"), "item0: expected a key such as item1"),
        (_pop("item2", "category_id"), "item2: category_id: expected an integer from 1 to 13, got no such field"),
        (_put(0, "item2", "category_id"), "item2: category_id: expected an integer from 1 to 13, got 0"),
        (_put(14, "item2", "category_id"), "category_id: expected an integer from 1 to 13, got 14"),
        (_put(True, "item2", "category_id"), "category_id: .* got true"),
        (_put(1.0, "item2", "category_id"), r"category_id: .* got 1\.0"),
        (_pop("item1", "style"), "item1: style: expected an integer >= 0, got no such field"),
        (_put(-2, "item1", "style"), "item1: style: expected an integer >= 0, got -2"),
        (_pop("item1", "bounding_box"), r"item1: bounding_box: expected \[x1, y1, x2, y2\] in pixels, got no such"),
        (_put([1, 2, 3], "item1", "bounding_box"), r"bounding_box: expected .* got \[1,2,3\]"),
        (_put([1, 2, None, 4], "item1", "bounding_box"), "bounding_box: expected"),
        (_put([9, 2, 3, 4], "item1", "bounding_box"), "item1: bounding_box: is inverted"),
        (_put([1, 8, 3, 4], "item1", "bounding_box"), "item1: bounding_box: is inverted"),
        (_put(4, "item1", "scale"), "item1: scale: expected 1, 2 or 3"),
        (_put(0, "item1", "zoom_in"), "item1: zoom_in: expected 1, 2 or 3"),
        (_put("2", "item1", "viewpoint"), "item1: viewpoint: expected 1, 2 or 3"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(
    dataset: Path, edit: Edit, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    edit(1, change)
    with pytest.raises(InputError, match=rf"validation/annos/000001\.json: .*{message}.*data check"):
        read_split(dataset, "validation")


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"source": NaN}'])
def test_a_file_that_is_no_annotation_is_named(dataset: Path, text: str) -> None:
    (dataset / "validation" / "annos" / "000003.json").write_text(text)
    with pytest.raises(InputError, match=r"000003\.json: (is not JSON|expected an object)"):
        read_split(dataset, "validation")


def test_missing_folders_say_what_was_expected_and_how_to_get_it(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder; expected .*image/000001\.jpg.*data render"):
        read_split(tmp_path / "nowhere", "train")
    with pytest.raises(InputError, match=r"train/image: no such folder.*found there: validation.*data render"):
        read_split(dataset, "train")
    (dataset / "train" / "image").mkdir(parents=True)
    with pytest.raises(InputError, match="train/image: holds no photo"):
        read_split(dataset, "train")
    with pytest.raises(InputError, match="split 'val' is unknown; expected one of train, validation, test"):
        read_split(dataset, "val")  # type: ignore[arg-type]


def test_train_and_validation_need_annotations(dataset: Path) -> None:
    (dataset / "validation" / "annos").rename(dataset / "elsewhere")
    with pytest.raises(InputError, match="validation/annos: no such folder; every validation photo needs"):
        read_split(dataset, "validation")


def test_photos_and_annotations_must_pair_up(dataset: Path) -> None:
    photo = dataset / "validation" / "image" / "000002.jpg"
    photo.rename(dataset / "kept.jpg")
    with pytest.raises(InputError, match=r"annos/000002\.json: has no photo 000002\.jpg"):
        read_split(dataset, "validation")
    (dataset / "kept.jpg").rename(photo)
    (dataset / "validation" / "annos" / "000010.json").unlink()
    with pytest.raises(InputError, match=r"image/000010\.jpg: has no annotation"):
        read_split(dataset, "validation")


@pytest.mark.parametrize("name", ["1.jpg", "000001.png", "photo.jpg", "0000011.jpg", "000001.JPG"])
def test_a_photo_of_a_foreign_name_is_named(dataset: Path, name: str) -> None:
    (dataset / "validation" / "image" / name).write_bytes(b"x")
    with pytest.raises(InputError, match=f"image/{name}: expected names such as 000001"):
        read_split(dataset, "validation")


def test_desktop_files_are_ignored(dataset: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "readme.txt"):
        (dataset / "validation" / "image" / name).write_bytes(b"x")
    assert len(read_split(dataset, "validation").photos) == 4


def test_fingerprint_follows_the_data_and_nothing_else(dataset: Path, edit: Edit) -> None:
    first = read_split(dataset, "validation").fingerprint
    assert len(first) == 64
    (dataset / "validation").rename(dataset / "train")
    assert read_split(dataset, "train").fingerprint == first
    (dataset / "train").rename(dataset / "validation")
    edit(3, _put(3, "item1", "scale"))
    changed = read_split(dataset, "validation").fingerprint
    edit(3, _put(2, "item1", "scale"))
    assert changed != first == read_split(dataset, "validation").fingerprint
    photo = dataset / "validation" / "image" / "000001.jpg"
    photo.write_bytes(photo.read_bytes() + b"x")
    assert read_split(dataset, "validation").fingerprint != first


@pytest.fixture
def unannotated(dataset: Path) -> Path:
    """The data set with its annotated split turned into a test split whose truth lies apart."""
    (dataset / "validation").rename(dataset / "test")
    (dataset / "test_truth").mkdir()
    (dataset / "test" / "annos").rename(dataset / "test_truth" / "annos")
    return dataset


def _information(place: Path, images: Any) -> None:
    place.write_text(json.dumps({"images": images}))


@pytest.mark.parametrize("folder", [".", "test"])
def test_information_files_tell_consumer_from_shop(unannotated: Path, folder: str) -> None:
    place = unannotated / folder
    _information(
        place / "retrieval_test_consumer_information.json",
        [{"id": 1, "file_name": "000001.jpg", "width": 5}, {"file_name": "test/image/000010.jpg"}],
    )
    _information(place / "retrieval_test_shop_information.json", [{"id": 2}, {"id": 3, "file_name": None}, {"id": 77}])
    split = read_split(unannotated, "test")
    assert split.items is None
    assert split.photos.is_consumer.tolist() == [True, False, False, True]


def test_information_files_must_be_sound(unannotated: Path) -> None:
    consumer, shop = (unannotated / f"retrieval_test_{kind}_information.json" for kind in ("consumer", "shop"))
    with pytest.raises(InputError, match=r"cannot tell consumer from shop photos.*copy both"):
        read_split(unannotated, "test")
    _information(consumer, [{"id": 1}])
    with pytest.raises(InputError, match=r"no retrieval_test_shop_information\.json"):
        read_split(unannotated, "test")
    _information(shop, [{"id": 2}, {"id": 3}])
    with pytest.raises(InputError, match="photo 000010 is neither there nor in"):
        read_split(unannotated, "test")
    _information(shop, [{"id": 1}, {"id": 2}, {"id": 3}, {"id": 10}])
    with pytest.raises(InputError, match=r"photo 000001 is in .*shop.* as well"):
        read_split(unannotated, "test")
    _information(shop, [{"name": 2}])
    with pytest.raises(InputError, match=r'images\[0\]: expected an integer "id"'):
        read_split(unannotated, "test")
    shop.write_text('{"image": []}')
    with pytest.raises(InputError, match='expected an object with a list "images"'):
        read_split(unannotated, "test")
    shop.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_split(unannotated, "test")


def test_the_kinds_of_photos_are_part_of_the_fingerprint(unannotated: Path) -> None:
    consumer, shop = (unannotated / f"retrieval_test_{kind}_information.json" for kind in ("consumer", "shop"))
    _information(consumer, [{"id": 1}, {"id": 2}])
    _information(shop, [{"id": 3}, {"id": 10}])
    first = read_split(unannotated, "test").fingerprint
    _information(consumer, [{"id": 1}])
    _information(shop, [{"id": 2}, {"id": 3}, {"id": 10}])
    assert read_split(unannotated, "test").fingerprint != first


def test_the_released_test_split_needs_no_information_files(tmp_path: Path) -> None:
    mask = consumer_mask_of_test(tmp_path, np.arange(1, 62_630))
    assert mask.sum() == 20_681
    assert mask[20_680]
    assert not mask[20_681]
    with pytest.raises(InputError, match="not the 62,629 photos"):
        consumer_mask_of_test(tmp_path, np.arange(2, 62_631))


def test_truth_kept_apart_can_be_read(unannotated: Path) -> None:
    _information(unannotated / "retrieval_test_consumer_information.json", [{"id": 1}, {"id": 2}])
    _information(unannotated / "retrieval_test_shop_information.json", [{"id": 3}, {"id": 10}])
    split = read_split(unannotated, "test")
    joined = with_truth(split)
    assert joined.items is not None
    assert joined.items.image_ids.tolist() == [1, 1, 2, 3, 3, 10]
    assert joined.fingerprint == split.fingerprint
    assert with_truth(joined) is joined
    folder = unannotated / "test_truth" / "annos"
    with pytest.raises(InputError, match=r"000002\.json: has no photo"):
        read_items(folder, np.array([1, 3, 10]))
    (folder / "000003.json").unlink()
    with pytest.raises(InputError, match=r"000003\.jpg: has no annotation"):
        with_truth(split)
    with pytest.raises(InputError, match="no such folder"):
        with_truth(split, unannotated / "none")


def test_polygons_of_a_photo(dataset: Path, edit: Edit) -> None:
    square = [[1, 1, 9, 1, 9, 9, 1, 9], [0, 0, 1, 1], "no polygon", [2, 2, 3.5, 2, 3, 4]]
    edit(1, _put(square, "item2", "segmentation"))
    edit(1, _pop("item1", "segmentation"))
    polygons = read_polygons(dataset / "validation" / "annos", 1)
    assert sorted(polygons) == [1, 2]
    assert polygons[1] == []
    assert [one.tolist() for one in polygons[2]] == [[[1, 1], [9, 1], [9, 9], [1, 9]], [[2, 2], [3.5, 2], [3, 4]]]
    with pytest.raises(InputError, match=r"000009\.json: cannot be read"):
        read_polygons(dataset / "validation" / "annos", 9)
    edit(1, _put(99, "item1", "category_id"))
    with pytest.raises(InputError, match="item1: category_id"):
        read_polygons(dataset / "validation" / "annos", 1)


def test_items_of_some_photos_need_no_photo(dataset: Path) -> None:
    shutil.rmtree(dataset / "validation" / "image")
    items = read_items_of(dataset, "validation", np.array([2, 1, 2]))
    assert items.image_ids.tolist() == [1, 1, 2]
    assert items.item_numbers.tolist() == [1, 2, 1]
    assert len(read_items_of(dataset, "validation", np.zeros(0, np.int64))) == 0
    with pytest.raises(InputError, match=r"validation/annos/000004\.json: cannot be read"):
        read_items_of(dataset, "validation", np.array([1, 4]))
    with pytest.raises(InputError, match=r"test/annos: no such folder"):
        read_items_of(dataset, "test", np.array([1]))


def test_items_of_some_photos_are_found_in_a_truth_kept_apart(unannotated: Path) -> None:
    assert read_items_of(unannotated, "test", np.array([1])).image_ids.tolist() == [1, 1]
