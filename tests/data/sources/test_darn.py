"""DARN's neutral list."""

import pytest

from harness.data.sources import read_source
from harness.types import InputError
from tests.data.sources.layouts import put, put_text, read, rows


def test_lines_are_photos(tmp_path):
    put(tmp_path, "a/1_0.jpg", "a/1_1.jpg", "b/with blank.jpg", "deep/er/9_9.jpg")
    put_text(
        tmp_path, "image.txt", "a/1_0.jpg 1 0 dress\n./a/1_1.jpg 1 3 dress\n\nb/with blank.jpg 2 0 x\n9_9.jpg 2 1 x\n"
    )
    garments, odd = read("DARN", tmp_path)
    assert odd == {}
    assert rows(garments) == [
        ("1_0.jpg", 0, True),
        ("1_1.jpg", 0, False),
        ("with blank.jpg", 1, True),
        ("9_9.jpg", 1, False),
    ]
    assert read("DARN", tmp_path / "image.txt")[0].record == garments.record


def test_faults_are_counted(tmp_path):
    put(tmp_path, "a/1.jpg", "b/1.jpg", "2.jpg", "3.jpg")
    lines = [
        "2.jpg 1 0 dress",
        "2.jpg 1 1 coat",  # the other domain; another category
        "2.jpg 1 0 dress",  # again
        "2.jpg 5 0 dress",  # another product
        "1.jpg 1 0 dress",  # two folders have one
        "gone.jpg 1 0 dress",
        "3.jpg 1",
        "3.jpg 5 1 skirt",
    ]
    put_text(tmp_path, "image.txt", "\n".join(lines))
    garments, odd = read("DARN", tmp_path)
    assert rows(garments) == [("2.jpg", 0, True), ("3.jpg", 1, False)]
    assert odd == {
        "product of several categories": (2, False),
        "line cannot be read": (1, True),
        "photo is not there": (2, True),
        "listed again": (1, True),
        "listed again for the other domain; the first stays": (1, True),
        "one crop under two identities; the first stays": (1, True),
    }


def test_a_folder_without_the_list_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"image\.txt: no such list; write one line a photo"):
        read_source("DARN", tmp_path)
