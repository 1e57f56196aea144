"""Street2Shop: items by category and product, boxes on street photos alone."""

import json

import numpy as np
import pytest

from harness.data.sources import read_source
from harness.data.sources.street2shop import CATEGORIES
from harness.types import InputError
from tests.data.sources.layouts import put, put_text, read, rows


def pair(photo, product, left=1, top=2, width=30, height=40):
    return {"photo": photo, "product": product, "bbox": {"left": left, "top": top, "width": width, "height": height}}


def write(root, meta="meta/json", **lists):
    for category in CATEGORIES:
        for kind in ("train_pairs", "test_pairs", "retrieval"):
            name = f"{kind}_{category}"
            put_text(root, f"{meta}/{name}.json", json.dumps(lists.get(name, [])))


@pytest.fixture
def folder(tmp_path):
    write(
        tmp_path,
        train_pairs_dresses=[pair(1, 7), pair(2, 7, 0.5, 1.5, 10, 20)],
        test_pairs_dresses=[pair(3, 8)],
        retrieval_dresses=[{"photo": 10, "product": 7}, {"photo": 11, "product": 8}],
        train_pairs_tops=[pair(4, 7)],
        retrieval_tops=[{"photo": 12, "product": 7}],
    )
    put(tmp_path, *(f"photos/{number:09d}.jpg" for number in (1, 2, 3, 4, 10, 11)), "photos/000000012")
    return tmp_path


def test_an_item_is_a_product_of_a_category(folder):
    garments, odd = read("Street2Shop", folder)
    assert odd == {}
    assert rows(garments) == [
        ("000000001.jpg", 0, True),
        ("000000002.jpg", 0, True),
        ("000000003.jpg", 1, True),
        ("000000010.jpg", 0, False),
        ("000000011.jpg", 1, False),
        ("000000004.jpg", 2, True),
        ("000000012", 2, False),
    ]
    assert garments.boxes_xyxy[0].tolist() == [1, 2, 31, 42]
    assert garments.boxes_xyxy[1].tolist() == [0.5, 1.5, 10.5, 21.5]
    assert np.isnan(garments.boxes_xyxy[~garments.is_consumer]).all()
    assert garments.record.split == "Street2Shop"
    assert garments.record.num_photos == 7
    assert not garments.record.rendered


def test_the_deeper_folder_of_some_copies_is_found(tmp_path):
    write(tmp_path, "meta/meta/json", train_pairs_hats=[pair(1, 1)], retrieval_hats=[{"photo": 2, "product": 1}])
    put(tmp_path, "images/1.png", "images/000000002.JPG")
    garments, odd = read("Street2Shop", tmp_path)
    assert odd == {}
    assert rows(garments) == [("1.png", 0, True), ("000000002.JPG", 0, False)]


def test_every_fault_is_counted_once(folder):
    write(
        folder,
        train_pairs_dresses=[
            pair(1, 7),
            pair(1, 7),  # listed again
            pair(1, 7, 2),  # another box of the same garment: used
            pair(1, 8),  # the same crop of another item
            pair(2, 7, width=0, height=0.0),
            pair(99, 7),  # not there
            {"photo": "2", "product": 7, "bbox": {}},
            {"photo": 2, "product": 7},
        ],
        test_pairs_dresses=[pair(1, 7, 3), pair(3, 9)],
        retrieval_dresses=[{"photo": 10, "product": 7}],
        train_pairs_tops=[pair(10, 7)],
    )
    garments, odd = read("Street2Shop", folder)
    assert odd == {
        "row cannot be read": (2, True),
        "photo is in the training and in the test pairs": (1, False),
        "item is in the training and in the test pairs": (1, False),
        "photo is not there": (1, True),
        "box of no area": (1, True),
        "listed again": (1, True),
        "one crop under two identities; the first stays": (1, True),
        "photo is a consumer's and a shop's": (1, False),
    }
    assert rows(garments) == [
        ("000000001.jpg", 0, True),
        ("000000001.jpg", 0, True),
        ("000000001.jpg", 0, True),
        ("000000003.jpg", 1, True),
        ("000000010.jpg", 0, False),
        ("000000010.jpg", 2, True),
    ]


def test_what_the_list_of_addresses_says_is_counted(folder):
    put_text(folder, "photos/photos.txt", "000000001,http://a,b\n000000777,http://gone.invalid/a,b.jpg\nnonsense\n")
    _, odd = read("Street2Shop", folder)
    assert odd == {"line of photos.txt cannot be read": (1, False), "photo of photos.txt has no file": (1, False)}


def test_missing_lists_are_told(folder):
    (folder / "meta/json/retrieval_tops.json").unlink()
    garments, odd = read("Street2Shop", folder)
    assert odd == {"list is not there": (1, False)}
    assert len(garments) == 6


def test_a_folder_without_lists_or_with_damaged_ones_is_refused(tmp_path, folder):
    (folder / "meta/json/train_pairs_bags.json").write_text("[{")
    with pytest.raises(InputError, match=r"train_pairs_bags\.json: is not JSON"):
        read_source("Street2Shop", folder)
    (folder / "meta/json/train_pairs_bags.json").write_text("{}")
    with pytest.raises(InputError, match=r"train_pairs_bags\.json: expected a list"):
        read_source("Street2Shop", folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no Street2Shop lists there; expected meta/json"):
        read_source("Street2Shop", tmp_path / "empty")
    with pytest.raises(InputError, match="no such folder"):
        read_source("Street2Shop", tmp_path / "nowhere")


def test_the_fingerprint_is_of_lists_and_photos(folder):
    first = read_source("Street2Shop", folder).record
    assert read_source("Street2Shop", folder).record == first
    put(folder, "photos/000000999.jpg")  # nobody names it
    assert read_source("Street2Shop", folder).record == first
    (folder / "photos/000000003.jpg").unlink()
    second = read_source("Street2Shop", folder).record
    assert second.fingerprint != first.fingerprint
    assert second.num_photos == 6


def test_lists_and_photos_that_are_there_twice_are_read_once(folder):
    write(folder, "meta/meta/json", train_pairs_dresses=[pair(3, 99)])
    put(folder, "photos/1.png")
    garments, odd = read("Street2Shop", folder)
    assert odd == {
        "list is there twice; the first is read": (33, False),
        "two files for one photo number; the first is read": (1, False),
    }
    assert len(garments) == 7
    assert rows(garments)[0] == ("000000001.jpg", 0, True)
