"""MVC: three row-aligned lists."""

import json

import pytest

from harness.data.sources import read_source
from harness.types import InputError
from tests.data.sources.layouts import put, put_text, read, rows

NAMES = ["p10_s31637100_v0", "p10_s31637100_v1", "p10_s31637101_v0", "p10_s31637101_v1"]
LABELS = [{"filename": name, "itemN": int(name[5:13]), "Red": 1} for name in NAMES]
LINKS = [{"image_url_4x": f"http://x/z/3/{name[5:13]}-{name[-1]}-4x.jpg"} for name in NAMES]


def write(root, labels=LABELS, links=LINKS, info=None):
    put_text(root, "attribute_labels.json", json.dumps(labels))
    put_text(root, "image_links.json", json.dumps(links))
    put_text(root, "mvc_info.json", json.dumps(labels) if info is None else info)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (NAMES, {}),
        ([f"{name[5:13]}-{name[-1]}-4x" for name in NAMES], {"files are named after their addresses": (4, False)}),
        (["0", "1", "2", "3"], {"files are named by the row's number from 0": (4, False)}),
        (["1", "2", "3", "4"], {"files are named by the row's number from 1": (4, False)}),
    ],
)
def test_files_are_found_however_they_are_named(tmp_path, files, told):
    write(tmp_path)
    put(tmp_path, *(f"images/{name}.jpg" for name in files))
    garments, odd = read("MVC", tmp_path)
    assert rows(garments) == [
        (f"{name}.jpg", identity, False) for name, identity in zip(files, [0, 0, 1, 1], strict=True)
    ]
    assert odd == told


def many(count):
    labels = [{"filename": f"p1_s{31637000 + n}_v0", "itemN": f"{31637000 + n}"} for n in range(count)]
    links = [{"image_url_4x": f"http://x/{31637000 + n}-p-4x.jpg"} for n in range(count)]
    return labels, links


def test_faults_are_counted(tmp_path):
    labels, links = many(60)
    links[3]["image_url_4x"] = "http://x/31637999-p-4x.jpg"  # another style
    links[5]["image_url_4x"] = links[4]["image_url_4x"]  # another style as well, whose photo is there
    labels[7]["itemN"] = None
    labels.append({"filename": "p1_s31637008_v1", "itemN": 31637008})
    links.append(links[8])
    labels[9]["filename"] = "p1_s555_v0"
    write(tmp_path, labels, links, '["déjà"]'.encode("cp1252"))
    put(tmp_path, *(f"{label['filename']}.jpg" for label in labels if label["filename"] != "p1_s31637010_v0"))
    garments, odd = read("MVC", tmp_path)
    assert odd == {
        "list is not UTF-8; read as Windows-1252": (1, False),
        "information of another length; it is not needed": (1, False),
        "address names another style": (2, True),
        "row cannot be read": (1, True),
        "address again": (1, True),
        "filename names another style than itemN; itemN counts": (1, False),
        "photo is not there": (1, True),
    }
    assert len(garments) == 61 - 5


def test_lists_that_are_not_utf8_are_read(tmp_path):
    labels = json.dumps([*LABELS[:3], {**LABELS[3], "colour": "caf?"}]).encode().replace(b"caf?", b"caf\xe9")
    write(tmp_path)
    put_text(tmp_path, "attribute_labels.json", labels)
    put(tmp_path, *(f"{name}.jpg" for name in NAMES))
    garments, odd = read("MVC", tmp_path)
    assert len(garments) == 4
    assert odd == {"list is not UTF-8; read as Windows-1252": (1, False)}


def test_addresses_with_other_numbers_are_not_compared(tmp_path):
    labels, links = many(40)
    for link in links:
        link["image_url_4x"] = link["image_url_4x"].replace("31637", "99999")
    write(tmp_path, labels, links)
    put(tmp_path, *(f"{label['filename']}.jpg" for label in labels))
    garments, odd = read("MVC", tmp_path)
    assert len(garments) == 40
    assert odd == {"addresses bear numbers other than itemN: not compared": (40, False)}


def test_addresses_of_another_length_are_not_used(tmp_path):
    write(tmp_path, links=LINKS[:3])
    put(tmp_path, *(f"{name}.jpg" for name in NAMES))
    garments, odd = read("MVC", tmp_path)
    assert len(garments) == 4
    assert odd == {
        "lists of different lengths: addresses cannot be told": (1, False),
        "no addresses: photos of other styles are not noticed": (1, False),
    }


def test_missing_and_damaged_lists_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no attribute_labels\.json there"):
        read_source("MVC", tmp_path)
    put_text(tmp_path, "attribute_labels.json", "[")
    with pytest.raises(InputError, match=r"attribute_labels\.json: is not JSON"):
        read_source("MVC", tmp_path)
    put_text(tmp_path, "attribute_labels.json", "{}")
    with pytest.raises(InputError, match=r"attribute_labels\.json: expected a list"):
        read_source("MVC", tmp_path)
