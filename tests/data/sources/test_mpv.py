"""MPV: photos of rows, items by the name before the @."""

import pytest

from harness.data.sources import read_source
from harness.types import InputError
from tests.data.sources.layouts import put, put_text, read, rows

A, B = "SC321E00D-O11@13=person_whole_front.jpg", "SC321E00D-O11@10.1=person_half_back.jpg"
CLOTH, OTHER = "SC321E00D-O11@12.1=cloth_front.jpg", "SC321E00D-K11@12=cloth_front.jpg"


def row(*names, split="train", folder="SC321E00D/"):
    return "\t".join([*(f"{folder}{name}" for name in names), split]) + "\n"


@pytest.mark.parametrize("prefix", ["MPV_192_256/SC321E00D/", "all/SC321E00D/", "SC321E00D/", "copied/"])
@pytest.mark.parametrize("name", ["all_poseA_poseB_clothes.txt", "all_poseA_poseB_clothes_0607.txt"])
def test_photos_are_taken_once(tmp_path, prefix, name):
    put(tmp_path, *(prefix + one for one in (A, B, CLOTH)))
    put_text(tmp_path, name, row(A, B, CLOTH) + row(B, A, CLOTH))
    garments, odd = read("MPV", tmp_path)
    assert rows(garments) == [(A, 0, True), (B, 0, True), (CLOTH, 0, False)]
    assert odd == {}


def test_a_folder_may_hold_several_colours(tmp_path):
    put(tmp_path, *("all/SC321E00D/" + one for one in (A, B, CLOTH, OTHER, "SC321E00D-Q11@1=cloth_front.jpg")))
    gone = "SC321E00D-O11@1=person_whole_side.jpg"
    text = row(A, B, OTHER, split="test") + row(A, gone, CLOTH) + "one\ttwo\n" + row(A, CLOTH, B)
    put_text(tmp_path, "all_poseA_poseB_clothes.txt", text)
    garments, odd = read("MPV", tmp_path)
    assert rows(garments) == [(A, 0, True), (B, 0, True), (OTHER, 1, False), (CLOTH, 0, False)]
    assert odd == {
        "row of two items: no positive, each photo is its own item's": (1, False),
        "row cannot be read": (1, True),
        "row is not person, person, cloth": (1, False),
        "photo that no row names": (1, False),
        "photo is not there": (1, True),
    }


def test_a_folder_without_the_list_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no all_poseA_poseB_clothes\.txt there"):
        read_source("MPV", tmp_path)
