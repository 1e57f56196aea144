"""Reading lists of rows in blocks: nothing may pass that JSON does not allow, and nothing may take memory or time."""

import io
import json
import math
import os
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.scoring import rows
from harness.scoring.results import Results
from harness.scoring.rows import ResultRow, blocks, objects, repeated_field, stream_blocks
from harness.scoring.truth import Queries
from harness.types import InputError
from tests.scoring.worlds import query, result

MIB = 1 << 20


def read(path, row_type=ResultRow):
    return list(blocks(path, row_type))


@pytest.fixture
def file(tmp_path):
    def write(content, name="results.json"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(rows, "BLOCK_BYTES", 4096)


def many(count):
    return [result(number, [0.5, 1.25, 100.125, 90.0], number % 13 + 1, number / count) for number in range(count)]


@pytest.mark.parametrize("layout", [{}, {"indent": 1}, {"separators": (",", ":")}], ids=["plain", "indented", "dense"])
def test_blocks_hold_all_rows_in_order(file, small_blocks, layout):
    expected = many(50)
    found = read(file(json.dumps(expected, **layout) + "\n"))
    assert len(found) > 5
    assert [block.first_row for block in found] == [sum(one.num_rows for one in found[:n]) for n in range(len(found))]
    assert [row for block in found for row in objects(block)] == expected
    assert [row.query_score for block in found for row in block.rows] == [row["query_score"] for row in expected]


def test_nested_objects_and_brackets_in_texts_do_not_confuse(file, small_blocks):
    """Fields beyond those of the challenge may hold whatever JSON has."""
    notes = [{"a": [{"b": "}, {"}, {"c": '\\"}, {"'}]}, "}, {", '"}, {"', [[], [{}], {}], "ü" * 3000, "\\"]
    expected = [row | {"note": notes[number % len(notes)]} for number, row in enumerate(many(60))]
    found = read(file(json.dumps(expected, ensure_ascii=False)))
    assert all(block.rows is not None for block in found)
    assert [row for block in found for row in objects(block)] == expected


@pytest.mark.parametrize("content", ["[]", " [ ] ", "\n[\n]\n"])
def test_an_empty_list_has_no_blocks(file, content):
    assert read(file(content)) == []


def test_rows_of_another_type_come_undecoded(file, small_blocks):
    expected = many(40)
    expected[20]["query_image_id"] = "20"
    found = read(file(json.dumps(expected)))
    (wrong,) = (block for block in found if block.rows is None)
    assert wrong.first_row <= 20 < wrong.first_row + wrong.num_rows
    assert [row for block in found for row in objects(block)] == expected


def test_numbers_that_json_has_not_come_undecoded(file):
    text = json.dumps(many(3)).replace("100.125", "NaN", 1).replace("100.125", "1e999", 1)
    (block,) = read(file(text))
    assert block.rows is None
    first, second, _ = objects(block)
    assert math.isnan(first["query_bbox"][2])
    assert second["query_bbox"][2] == math.inf


def test_a_field_twice_is_found(file, small_blocks):
    texts = [json.dumps(row) for row in many(30)]
    texts[17] = texts[17].replace('"query_cls"', '"query_score": 0.1, "query_cls"')
    path = file("[" + ",".join(texts) + "]")
    (wrong,) = (block for block in read(path) if block.rows is None)
    assert repeated_field(wrong.text, ResultRow) == (17 - wrong.first_row, "query_score")
    with pytest.raises(InputError, match="row 17: has the field 'query_score' twice"):
        Results.from_json(path)


def test_a_field_twice_in_the_ground_truth_is_refused(file):
    rows = [query(1, [0, 0, 1, 1]), query(2, [0, 0, 1, 1]) | {"scale": 2}]
    text = json.dumps(rows)
    with pytest.raises(InputError, match="row 1: scale: expected in all rows or in none, got it in 1 of 2"):
        Queries.from_json(file(text))
    text = text.replace(', "scale": 2', "")
    assert Queries.from_json(file(text)).pair_ids.tolist() == [1, 1]
    with pytest.raises(InputError, match="row 1: has the field 'pair_id' twice; keep one of them"):
        Queries.from_json(file(text.replace("}]", ', "pair_id": 3}]')))
    with pytest.raises(InputError, match="row 0: has the field 'scale' twice"):
        Queries.from_json(file(text.replace("},", ', "scale": 1, "scale": 1},')))


def test_a_foreign_field_twice_does_not_matter(file):
    (block,) = read(file(json.dumps(many(2)).replace('"query_cls"', '"x": 1, "x": 2, "query_cls"')))
    assert block.rows is not None


SOUND = json.dumps(many(30))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (b" " * 300_000, "begins with blanks only"),
        ("{}", "expected a JSON list with one object a row, got '{}'"),
        (b"\xef\xbb\xbf[]", "is UTF-8 with a byte order mark; write it as plain UTF-8"),
        ("[]".encode("utf-16"), "is UTF-16"),
        (b"\x00\x01\x02noise", "expected a JSON list"),
        (b"[\x00\x01\x02noise]", "row 0: is not JSON: Expecting value"),
        ("[,]", "row 0: is not JSON: it is missing, after a comma too many"),
        ("[{}", "ends in the middle of row 0: the file is cut off"),
        (SOUND[:-1], "ends in the middle of row 29: the file is cut off"),
        (SOUND[: len(SOUND) // 2], "ends in the middle of row 15: the file is cut off"),
        (SOUND[:-1] + ",]", "row 30: is not JSON: it is missing, after a comma too many"),
        (SOUND.replace("}, {", "}, , {", 1), "row 1: is not JSON: it is missing, after a comma too many"),
        (SOUND.replace("}, {", "} {", 5), "row 0: is not JSON: Extra data"),
        (SOUND.replace('"query_cls": 6', '"query_cls" 6', 1), "row 5: is not JSON: Expecting ':' delimiter"),
        (SOUND + "]", "the list ends after 30 rows, and then comes ']'"),
        (SOUND + " " * 200_000 + SOUND, r"the list ends after 30 rows, and then comes '\[\{"),
        ("[]  x", "the list ends after 0 rows, and then comes 'x'"),
        (SOUND.encode().replace(b"query_cls", b"query_\xff", 1), "row 0: is not JSON: the bytes .* are not UTF-8"),
        ('[{"a": ' + "9" * 5000 + "}]", "row 0: is not JSON: a number has more than 4,300 digits"),
        ("[{'a': 1}]", "row 0: is not JSON: Expecting property name .* at its character 1, where \"'a': 1}\" stands"),
        ('{"a": 1}\n{"a": 2}\n', "one object a line\\? put commas between them"),
        ('{"results": [{}]}', "if the list stands under a name, give the list alone"),
        (b"\x1f\x8b\x08\x00", "is packed with gzip; unpack it"),
        (b"PK\x05\x06" + bytes(18), "expected an archive of one file, got 0 files"),
        ('[{"a": "\n"}]', "row 0: is not JSON: Invalid control character"),
        ('[{"a": "' + "x" * 500, "ends in the middle of row 0"),
    ],
)
def test_what_is_wrong_is_said_with_the_row(file, small_blocks, content, message):
    path = file(content)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 400


def test_the_rows_before_the_damage_come_first(file, small_blocks):
    found, seen = blocks(file(SOUND[:-1]), ResultRow), 0
    for _ in range(8):
        seen += next(found).num_rows
    with pytest.raises(InputError, match="middle of row 29"):
        next(found)
    assert seen == 29


KEYS = st.text('ab"{}[],\\', max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda values: (
        st.lists(values, max_size=4) | st.dictionaries(st.text('ab"{}[],\\', max_size=3), values, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(values=st.lists(JSON, max_size=12), indent=st.sampled_from([None, 0, 2]))
def test_every_json_list_is_read_as_json_reads_it(tmp_path, values, indent):
    text = json.dumps(values, indent=indent)
    path = tmp_path / "list.json"
    path.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "BLOCK_BYTES", 16)
        found = [row for block in blocks(path, ResultRow) for row in objects(block)]
    assert repr(found) == repr(json.loads(text))


PIECES = [b"", b"[", b"]", b"{", b"}", b",", b'"', b"\\", b"1", b"\xff", b" "]


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_damaged_bytes_are_refused_exactly_when_json_refuses_them(tmp_path, data):
    """Bytes of a sound file are cut out, repeated or replaced."""
    good = bytearray(json.dumps(many(4)).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(good)))
        end = min(len(good), start + data.draw(st.integers(0, 12)))
        good[start:end] = data.draw(st.sampled_from(PIECES))
    content = bytes(good)
    path = tmp_path / "damaged.json"
    path.write_bytes(content)
    try:
        expected = json.loads(content.decode())
    except ValueError:
        expected = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "BLOCK_BYTES", 256)
        if isinstance(expected, list):
            assert repr([row for block in blocks(path, ResultRow) for row in objects(block)]) == repr(expected)
        else:
            with pytest.raises(InputError):
                read(path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=300), head=st.sampled_from([b"", b"[", b"[{", b"PK\x03\x04"]))
def test_noise_is_refused(tmp_path, content, head):
    path = tmp_path / "noise"
    path.write_bytes(head + content)
    try:
        Results.from_json(path)
    except InputError:
        return
    assert json.loads((head + content).decode()) == []


def archive(tmp_path, members, name="results.zip"):
    path = tmp_path / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for member, content in members.items():
            packed.writestr(member, content)
    return path


def test_an_archive_with_one_file_is_read_through(tmp_path, small_blocks):
    path = archive(tmp_path, {"results.json": SOUND, "__MACOSX/._results.json": "x", "folder/": ""})
    assert [row for block in read(path) for row in objects(block)] == many(30)


def test_damaged_and_ambiguous_archives_are_refused(tmp_path, file):
    with pytest.raises(InputError, match=r"expected an archive of one file, got 2 files \(a.json, b.json\)"):
        read(archive(tmp_path, {"a.json": "[]", "b.json": "[]"}))
    with pytest.raises(InputError, match="expected an archive of one file, got 0 files"):
        read(archive(tmp_path, {"folder/": ""}))
    content = bytearray(archive(tmp_path, {"results.json": SOUND}).read_bytes())
    with pytest.raises(InputError, match="archive is cut off or damaged"):
        read(file(bytes(content[:500]), "cut.zip"))
    content[60:90] = bytes(30)
    with pytest.raises(InputError, match="cannot be read on after row 0"):
        read(file(bytes(content), "damaged.zip"))


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="a pipe has no path here")
def test_a_pipe_is_refused_as_such():
    """The message was "cannot be read (None)"."""
    receiving, sending = os.pipe()
    with open(receiving, "rb"), open(sending, "wb") as pipe:
        pipe.write(b"[]   \n")
        pipe.flush()
        with pytest.raises(InputError, match=r"is a pipe.*give that file"):
            read(Path(f"/dev/fd/{receiving}"))


class Endless(io.RawIOBase):
    """A stream that repeats itself for ever, as a zip bomb does."""

    def __init__(self, head, body):
        self.head, self.body = head, body * (MIB // len(body) + 1)
        self.num_bytes = len(body)

    def read(self, size=-1):
        part, self.head = self.head[:size], self.head[size:]
        if part:
            return part
        part = self.body[:size]
        shift = len(part) % self.num_bytes
        self.body = self.body[shift:] + self.body[:shift]
        return part


@pytest.mark.parametrize(
    ("head", "body", "message"),
    [
        (b"[", b"[", "row 0: is nested more than 100 brackets deep"),
        (b'[{"a":', b"[", "row 0: is nested more than 100 brackets deep"),
        (b'[{"a":', b'{"a":', "row 0: is nested more than 100 brackets deep"),
        (b"[", b" ", "row 0: has more than 4 MB"),
        (b'["', b"x", "row 0: has more than 4 MB"),
        (b'["', b"\\", "row 0: has more than 4 MB"),
        (b"[{", b'"a":1,', "row 0: has more than 4 MB"),
        (b"[", b"1,", r"has more than 100,000 rows"),
        (b"[", b"{},", r"has more than 100,000 rows"),
        (b"[", SOUND[1:-1].encode() + b",", r"has more than 0\.1 GB"),
        (b"[] ", b" ", r"has more than 0\.1 GB"),
    ],
)
def test_endless_input_ends_in_bounded_memory_and_time(monkeypatch, head, body, message):
    monkeypatch.setattr(rows, "MAX_BYTES", 50 * MIB)
    monkeypatch.setattr(rows, "MAX_ROWS", 100_000)
    started = time.monotonic()
    tracemalloc.start()
    with pytest.raises(InputError, match=message):
        for _ in stream_blocks(Endless(head, body), "endless", ResultRow):
            pass
    assert tracemalloc.get_traced_memory()[1] < 220 * MIB
    tracemalloc.stop()
    assert time.monotonic() - started < 120


def test_a_zip_bomb_is_refused(tmp_path):
    """200 MB of brackets in 200 kB."""
    path = archive(tmp_path, {"results.json": b"[" * (200 * MIB)})
    assert path.stat().st_size < MIB
    with pytest.raises(InputError, match="row 0: is nested more than 100 brackets deep"):
        read(path)
