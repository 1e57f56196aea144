"""Many writers at once: every acknowledged row is there, once, and whole."""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from leaderboard.store import Board
from tests.leaderboard.writers import written_row

NUM_WRITERS = 8
ROOT = Path(__file__).parents[2]


def start(place: str, writer: int, num_rows: int, acknowledged: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.leaderboard.writers", place, str(writer), str(num_rows), str(acknowledged)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def lines(path: Path) -> list[str]:
    """Whole lines alone: a killed writer may have been at one."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


def write_at_once(place: str, num_rows: int, folder: Path) -> None:
    """Let all writers write, kill the first half way, and look after what they were told."""
    files = [folder / f"acknowledged-{writer}" for writer in range(NUM_WRITERS)]
    writers = [start(place, writer, num_rows, file) for writer, file in enumerate(files)]
    victim, others = writers[0], writers[1:]
    while len(lines(files[0])) < num_rows // 2:
        assert victim.poll() is None, victim.communicate()[1]
        time.sleep(0.005)
    victim.kill()
    assert victim.wait() == -9
    victim.communicate()
    for writer in others:
        _, said = writer.communicate()
        assert writer.returncode == 0, said

    acknowledged = [lines(file) for file in files]
    assert num_rows // 2 <= len(acknowledged[0]) < num_rows
    assert [len(one) for one in acknowledged[1:]] == [num_rows] * (NUM_WRITERS - 1)
    with Board(place, create=False) as board:
        # Reading computes every row's id anew, so that a torn row would be refused.
        rows = board.rows()
        assert board.questions(str(rows[0].questions_id)) is not None
    counts = Counter(row.id for row in rows)
    told = [one_id for one in acknowledged for one_id in one]
    assert set(told) <= set(counts)
    assert set(counts.values()) == {1}
    # The killed writer may have been between the board's answer and its note.
    assert len(rows) - len(told) in (0, 1)
    by_name = {row.name: row.id for row in rows}
    for writer, number in ((0, 0), (1, num_rows - 1), (7, num_rows // 2)):
        assert by_name[f"w{writer}-{number}"] == written_row(writer, number).id


def test_eight_writers_one_of_them_killed(place, tmp_path):
    write_at_once(place, 40, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_eight_writers_of_a_thousand_rows_one_of_them_killed(place, tmp_path):
    write_at_once(place, 1000, tmp_path)
