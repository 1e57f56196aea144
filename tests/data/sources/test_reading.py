"""One entry for every source: names, a team's own list, and the report."""

import numpy as np
import pytest

from harness.data.sources import SOURCES, examine, read_source
from harness.data.sources.bytes_alike import alike
from harness.retrieval.recipes import load_recipes
from harness.types import InputError
from tests.data.conftest import write_photo
from tests.data.sources.layouts import put, put_text, rows

MANIFEST = """image,box,item,domain
a/1.jpg,1 2 30 40.5,shirt,consumer
a/2.jpg,,shirt,shop
b/3.jpg,0 0 9 9,"coat, long",Shop
b/4.jpg,,"coat, long",consumer
b/4.jpg,1 1 5 5,,consumer
"""


@pytest.fixture
def manifest(tmp_path):
    put_text(tmp_path, "mine.csv", MANIFEST)
    for seed, name in enumerate(("a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg")):
        write_photo(tmp_path / name, seed=seed)
    return tmp_path / "mine.csv"


def test_the_names_are_those_of_the_recipes():
    wanted = {source for recipe in load_recipes().values() for source in recipe.trained_on}
    assert {name for name in wanted if not name.startswith("DeepFashion2/")} == set(SOURCES)


def test_a_manifest(manifest):
    garments = read_source("Ours", manifest)
    assert garments.source == "Ours"
    assert rows(garments) == [
        ("1.jpg", 0, True),
        ("2.jpg", 0, False),
        ("3.jpg", 1, False),
        ("4.jpg", 1, True),
        ("4.jpg", -1, True),
    ]
    assert garments.boxes_xyxy[0].tolist() == [1, 2, 30, 40.5]
    assert np.isnan(garments.boxes_xyxy[1]).all()
    assert [path.exists() for path in garments.photos] == [True] * 4


def test_a_manifest_may_stand_for_a_known_source(manifest):
    assert read_source("DARN", manifest).record.split == "DARN"


def test_faults_of_a_manifest_are_counted(manifest):
    more = "a/1.jpg,1 2 3,x,shop\na/1.jpg,,x,street\na/1.jpg,,x\ngone.jpg,,x,shop\n,,x,shop\na/2.jpg,9 9 2 2,x,shop\n"
    manifest.write_text("\ufeff" + MANIFEST.replace("domain\n", "domain\n") + more)
    report = examine("Ours", manifest)
    assert report.num_entries == 11
    assert report.num_garments == 5
    assert {one.kind: one.count for one in report.oddities if one.left_out} == {
        "box is not x1 y1 x2 y2": 1,
        "domain is neither consumer nor shop": 1,
        "row has not as many values as the header": 1,
        "photo is not there": 2,
        "box of no area": 1,
    }
    assert {one.kind: one.count for one in report.oddities if not one.left_out} == {"no item: matches nothing": 1}


def test_columns_may_come_in_any_order(tmp_path):
    put(tmp_path, "1.jpg", "2.jpg")
    put_text(tmp_path, "mine.csv", "note,domain,item,box,image\nx,shop,1,,1.jpg\ny,shop,1,,2.jpg\n")
    assert rows(read_source("Ours", tmp_path / "mine.csv")) == [("1.jpg", 0, False), ("2.jpg", 0, False)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,box,item\n", "the header lacks domain; expected image,box,item,domain, got image,box,item"),
        ("", "the header lacks image, box, item, domain"),
        (b"image,box,item,domain\n\xff\xfe,,,\n", "is not a CSV file in UTF-8"),
        ("image,item,box,item,domain\n", "the header has item more than once"),
        ('image,box,item,domain\nx.jpg,,1,shop\n"y.jpg,,1,shop\nz.jpg,,1,shop\n', r"line 4: .*is a quote not closed"),
        ("image,box,item,domain\n", "none of the 0 entries of Ours can be used"),
        ("image,box,item,domain\nx.jpg,,1,shop\n", "none of the 1 entries of Ours can be used; first: photo is not"),
    ],
)
def test_manifests_that_cannot_be_used_are_refused(tmp_path, text, message):
    put_text(tmp_path, "mine.csv", text)
    with pytest.raises(InputError, match=message):
        read_source("Ours", tmp_path / "mine.csv")


def test_folders_and_names_that_no_file_can_have_are_no_photos(manifest):
    with manifest.open("a") as file:
        file.write("a\0b/c.jpg,,7,shop\n.,,7,shop\nphotos/,,7,shop\n")
    (manifest.parent / "photos").mkdir()
    report = examine("Ours", manifest)
    assert (report.num_entries, report.num_garments) == (8, 5)
    assert {one.kind: one.count for one in report.oddities if one.left_out} == {"photo is not there": 3}


@pytest.mark.parametrize("name", ["DeepFashion2/validation", "deepfashion2", "DeepFashion2/train"])
def test_no_source_can_pass_for_a_split_of_deepfashion2(name, manifest):
    with pytest.raises(InputError, match="known by --data and --split; name the source otherwise"):
        read_source(name, manifest)


def test_unknown_names_are_refused_with_the_known_ones(tmp_path):
    with pytest.raises(InputError, match="no training source named 'Ours'; there are Street2Shop, DARN, MVC, MPV, Zal"):
        read_source("Ours", tmp_path)
    with pytest.raises(InputError, match="no such file; expected a CSV file"):
        read_source("Ours", tmp_path / "gone.csv")


def test_the_report_counts(manifest):
    report = examine("Ours", manifest)
    assert (report.num_photos, report.num_consumer, report.num_shop) == (4, 3, 2)
    assert (report.num_identities, report.num_matched, report.num_with_two_views) == (2, 2, 2)
    assert report.ok
    assert not report.rendered
    (manifest.parent / "RENDERED.json").write_text("{}")
    assert examine("Ours", manifest).rendered


def test_the_report_looks_into_photos(manifest):
    root = manifest.parent
    (root / "a/2.jpg").write_bytes((root / "a/1.jpg").read_bytes())
    (root / "b/4.jpg").write_bytes((root / "a/1.jpg").read_bytes())
    photo = (root / "b/3.jpg").read_bytes()
    (root / "b/3.jpg").write_bytes(photo[: len(photo) // 2])
    manifest.write_text(MANIFEST.replace("1 2 30 40.5", "900 2 930 40.5"))
    seen = []
    found = {
        one.kind: one.count
        for one in examine("Ours", manifest, decode=None, progress=lambda *at: seen.append(at)).oddities
    }
    assert found == {
        "no item: matches nothing": 1,
        "photo is byte for byte another one of the same item": 1,
        "photo is byte for byte another one of another item": 1,
        "photo of the sample cannot be decoded": 1,
        "box of the sample lies outside its photo": 1,
    }
    assert seen[-1] == (8, 8)


def test_photos_alike_in_their_middle_alone_are_told_apart(tmp_path):
    same = b"x" * 50_000
    for name, content in {"a": same, "b": b"y" + same[1:], "c": same, "d": b"", "e": b"", "f": same[1:]}.items():
        (tmp_path / name).write_bytes(content)
    assert alike([tmp_path / name for name in "abcdef"]) == [[0, 2], [3, 4]]
    assert alike([]) == []


def test_links_are_followed_once(tmp_path):
    put(tmp_path, "elsewhere/1.jpg")
    root = tmp_path / "darn"
    put_text(root, "image.txt", "photos/1.jpg 1 0 x\n")
    (root / "photos").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(root)
    assert rows(read_source("DARN", root)) == [("1.jpg", 0, True)]
