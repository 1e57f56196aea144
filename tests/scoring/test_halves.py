"""A file read by two processes is the file read by one."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from harness.scoring import halves
from harness.scoring.results import Results
from harness.types import InputError
from tests.scoring.worlds import result

ROOT = Path(__file__).parents[2]


@pytest.fixture
def halved(monkeypatch):
    """Every file is large enough, this process may be copied, and it is known which files were halved."""
    found = []
    read = halves.read_halves

    def noted(path, reader):
        found.append(read(path, reader))
        return found[-1]

    monkeypatch.setattr(halves, "MIN_BYTES", 0)
    monkeypatch.setattr(halves, "_may_fork", lambda: True)
    monkeypatch.setattr("harness.scoring.results.read_halves", noted)
    return found


def write(folder, rows, **layout):
    path = folder / "results.json"
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows, **layout))
    return path


def many(count):
    return [result(number, [number / 3, 1, 100, 90], number % 13 + 1, number / count) for number in range(count)]


def same(first, second):
    for name in first.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("layout", [{}, {"indent": 1}, {"separators": (",", ":")}], ids=["plain", "indented", "dense"])
@pytest.mark.parametrize("count", [2, 3, 250])
def test_both_halves_make_the_whole(tmp_path, halved, monkeypatch, layout, count):
    path = write(tmp_path, many(count), **layout)
    both = Results.from_json(path)
    assert halved[0] is not None or count < 4  # the middle of two rows may lie in the second
    monkeypatch.setattr(halves, "_may_fork", lambda: False)
    same(both, Results.from_json(path))
    assert halved[1] is None
    assert both.image_ids.tolist() == list(range(count))


def test_limits_are_of_the_whole_file_not_of_a_half(tmp_path, halved, monkeypatch):
    """Twice as much as the limits allow was read, each half being within them."""
    path = write(tmp_path, many(80))
    for module in ("rows", "results"):
        monkeypatch.setattr(f"harness.scoring.{module}.MAX_ROWS", 50, raising=False)
    with pytest.raises(InputError, match="has more than 50 rows"):
        Results.from_json(path)
    monkeypatch.undo()
    for module in ("rows", "halves"):
        monkeypatch.setattr(f"harness.scoring.{module}.MAX_BYTES", path.stat().st_size - 1000, raising=False)
    monkeypatch.setattr(halves, "MIN_BYTES", 0)
    monkeypatch.setattr(halves, "_may_fork", lambda: True)
    with pytest.raises(InputError, match="no result file needs that"):
        Results.from_json(path)


@pytest.mark.parametrize("count", [0, 1])
def test_what_cannot_be_halved_is_read_as_one(tmp_path, halved, count):
    assert len(Results.from_json(write(tmp_path, many(count)))) == count
    assert halved == [None]


def test_the_message_of_a_wrong_row_does_not_depend_on_its_half(tmp_path, halved):
    for row in (3, 70):
        rows = many(80)
        rows[row]["query_cls"] = None
        with pytest.raises(InputError, match=f"row {row}: query_cls: expected an integer, got null"):
            Results.from_json(write(tmp_path, rows))
    assert halved == [None, None]


def test_lists_that_differ_in_length_between_the_halves_are_refused(tmp_path, halved):
    rows = many(80)
    for row in rows[40:]:
        row["gallery_image_id"].append(1)
        row["gallery_bbox"].append([0, 0, 1, 1])
    with pytest.raises(InputError, match="row 40: gallery_image_id: expected 20 entries"):
        Results.from_json(write(tmp_path, rows))


def test_a_cut_inside_a_nested_object_is_noticed(tmp_path, halved):
    """The only place near the middle that looks like the end of a row is none."""
    rows = many(2)
    rows[0]["note"] = [{"x": "y" * 4000}, {"x": 1}, {"x": "y" * 3000}]
    found = Results.from_json(write(tmp_path, rows))
    assert halved == [None]
    assert found.image_ids.tolist() == [0, 1]


def test_a_truncated_file_is_named_as_such(tmp_path, halved):
    with pytest.raises(InputError, match="ends in the middle of row 79"):
        Results.from_json(write(tmp_path, json.dumps(many(80))[:-9]))


def test_a_copy_that_dies_costs_time_only(tmp_path, halved, monkeypatch):
    monkeypatch.setattr(halves, "_send", lambda pipe, work: os.kill(os.getpid(), 9))
    assert len(Results.from_json(write(tmp_path, many(80)))) == 80
    assert halved == [None]


def test_where_no_copy_can_be_made_no_pipe_is_left_open(tmp_path, halved, monkeypatch):
    """Both ends stayed open for every file that was read under a limit of processes."""

    def refused():
        raise BlockingIOError("too many processes")

    ends = []
    pipe = os.pipe
    monkeypatch.setattr(os, "pipe", lambda: ends.append(pipe()) or ends[-1])
    monkeypatch.setattr(os, "fork", refused)
    assert len(Results.from_json(write(tmp_path, many(80)))) == 80
    assert halved == [None]
    for end in ends[0]:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(end)


def test_no_copy_is_left_behind(tmp_path, halved):
    before = {child.pid for child in psutil.Process().children()}  # other tests may have children of their own
    Results.from_json(write(tmp_path, many(80)))
    assert halved[0] is not None
    assert {child.pid for child in psutil.Process().children()} <= before


def test_a_process_with_threads_or_torch_is_not_copied(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    alone = halves._may_fork()
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    assert not halves._may_fork()
    stop.set()
    other.join()
    monkeypatch.setitem(sys.modules, "torch", object())
    assert not halves._may_fork()
    assert alone == (threading.active_count() == 1 and len(os.sched_getaffinity(0)) > 1)


@pytest.mark.slow
def test_a_large_file_is_halved_without_being_asked(tmp_path):
    path = write(tmp_path, many(12_000))
    assert path.stat().st_size > halves.MIN_BYTES
    program = (
        "import sys; from pathlib import Path; from harness.scoring import results\n"
        "seen = []; read = results.read_halves\n"
        "results.read_halves = lambda *given: seen.append(read(*given)) or seen[-1]\n"
        "print(len(results.Results.from_json(Path(sys.argv[1]))), seen[0] is not None)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, path], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["12000", str(len(os.sched_getaffinity(0)) > 1)]
