"""A program that adds rows to a board and writes down each id after the board has taken it."""

import sys
from pathlib import Path

import numpy as np

from harness.scoring.questions import Questions
from leaderboard.rows import Losses, Row
from leaderboard.store import Board
from tests.leaderboard.samples import sample

NUM_QUERIES = 200


def questions() -> Questions:
    column = np.arange(NUM_QUERIES)
    return Questions(column, column % 13 + 1, column % 7, {"scale": column % 4})


def written_row(writer: int, number: int) -> Row:
    """The one row that this writer writes as this number, with an outcome of its own."""
    rng = np.random.default_rng([writer, number])
    ranks, fates = rng.integers(0, 25, NUM_QUERIES), rng.integers(0, 6, NUM_QUERIES).astype(np.uint8)
    return sample(f"w{writer}-{number}", ranks.tolist(), losses=Losses(fates), questions_id=questions().id)


def main(place: str, writer: int, num_rows: int, acknowledged: Path) -> None:
    known = questions()
    with Board(place) as board, acknowledged.open("w") as file:
        for number in range(num_rows):
            file.write(board.add(written_row(writer, number), known) + "\n")
            file.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
