"""VITON's photos, original and repackaged."""

import pytest

from harness.data.sources import LICENCES, examine, read_source
from harness.types import InputError
from tests.data.sources.layouts import put, put_text, read, rows

ROWS = [
    ("000003_0.jpg", 0, True),
    ("000003_1.jpg", 0, False),
    ("000010_0.jpg", 1, True),
    ("000010_1.jpg", 1, False),
]


def test_the_original_layout(tmp_path):
    put(tmp_path, *(f"women_top/{stem}.jpg" for stem in ("000003_0", "000003_1", "000010_0", "000010_1")))
    put_text(tmp_path, "viton_train_pairs.txt", "000003_0.jpg 000003_1.jpg\n")
    put_text(tmp_path, "viton_test_pairs.txt", "000010_0.jpg 000003_1.jpg\n\n")
    garments, odd = read("Zalando", tmp_path)
    assert rows(garments) == ROWS
    assert odd == {"line of the test list pairs two items: no positive, each photo is its own item's": (1, False)}


def test_the_repackaged_layout(tmp_path):
    put(tmp_path, "train/image/000003_0.jpg", "train/cloth/000003_1.jpg", "test/image/000010_0.jpg")
    put(tmp_path, "test/cloth/000010_1.jpg", "train/cloth-mask/000003_1.jpg", "train/image-parse/000003_0.png")
    garments, odd = read("Zalando", tmp_path)
    assert sorted(rows(garments), key=lambda row: row[0]) == [
        (name, 1 - identity, side) for name, identity, side in ROWS
    ]
    assert odd == {}


def test_faults_are_counted(tmp_path):
    put(
        tmp_path,
        "women_top/000003_0.jpg",
        "women_top/readme_0.jpg",
        "women_top/000003_1.jpg",
        "train/cloth/000003_1.jpg",
    )
    put_text(tmp_path, "train_pairs.txt", "000003_0.jpg 000003_1.jpg\n000004_0.jpg 000003_1.jpg\n000003_0.jpg\n")
    garments, odd = read("Zalando", tmp_path)
    assert [name for name, _, _ in rows(garments)] == ["000003_1.jpg", "000003_0.jpg"]
    assert odd == {
        "name is no six-digit number with _0 or _1": (1, True),
        "photo of this name is in another folder": (1, True),
        "line of the train list pairs two items: no positive, each photo is its own item's": (1, False),
        "line cannot be read": (1, False),
        "photo is not there": (1, True),
    }


def test_the_licence_is_told(tmp_path):
    put(tmp_path, "women_top/000003_0.jpg", "women_top/000003_1.jpg")
    assert "copyright" in LICENCES["Zalando"]
    assert examine("Zalando", tmp_path, decode=0).licence == LICENCES["Zalando"]


def test_another_folder_is_refused(tmp_path):
    put(tmp_path, "elsewhere/000003_0.jpg")
    with pytest.raises(InputError, match="no VITON photos there; expected women_top"):
        read_source("Zalando", tmp_path)
