"""Every entry has one fate: against a plain loop over random entries."""

import math
from pathlib import Path

import numpy as np
import pytest

from harness.data.sources.gathering import Entries, Tally, gather

BOXES = [
    (math.nan,) * 4,
    (0, 0, 5, 5),
    (1, 0, 5, 5),
    (3, 3, 3, 9),
    (5, 5, 1, 1),
    (0, 0, math.inf, 4),
    (0, math.nan, 3, 3),
]


def plainly(files, boxes, items, sides):
    """Rows that stay, and kind -> count of those that do not."""
    kept, gone = [], {}
    for row, (file, box, item, side) in enumerate(zip(files, boxes, items, sides, strict=True)):
        whole = all(map(math.isnan, box))
        earlier = [other for other in range(row) if files[other] == file and repr(boxes[other]) == repr(box)]
        if file is None:
            kind = "photo is not there"
        elif not whole and not (all(map(math.isfinite, box)) and box[0] < box[2] and box[1] < box[3]):
            kind = "box of no area"
        elif any(items[other] == item and sides[other] == side for other in earlier):
            kind = "listed again"
        elif any(items[other] == item for other in earlier):
            kind = "listed again for the other domain; the first stays"
        elif earlier:
            kind = "one crop under two identities; the first stays"
        else:
            kept.append(row)
            continue
        gone[kind] = gone.get(kind, 0) + 1
    return kept, gone


@pytest.mark.parametrize("seed", range(20))
def test_fates(seed, tmp_path):
    random = np.random.default_rng(seed)
    count = int(random.integers(0, 80))
    files = [[None, "a.jpg", "b.jpg", "c.jpg", "d.jpg"][n] for n in random.integers(0, 5, count)]
    boxes = [tuple(map(float, BOXES[n])) for n in random.integers(0, len(BOXES), count)]
    items = [[None, "x", "y", 3][n] for n in random.integers(0, 4, count)]
    sides = (random.random(count) < 0.5).tolist()
    (tmp_path / "list").write_text("")
    (tmp_path / "RENDERED.json").write_text("")
    tally = Tally()
    entries = Entries(
        tmp_path, files, np.array(boxes).reshape(-1, 4), items, np.array(sides, bool), str, [Path(tmp_path / "list")]
    )
    garments = gather("S", entries, tally)
    kept, gone = plainly(files, boxes, items, sides)
    assert [garments.photos[row].name for row in garments.photo_rows.tolist()] == [files[row] for row in kept]
    assert np.array_equal(garments.boxes_xyxy, np.array([boxes[row] for row in kept]).reshape(-1, 4), equal_nan=True)
    assert garments.is_consumer.tolist() == [sides[row] for row in kept]
    for one, identity in zip(kept, garments.identities.tolist(), strict=True):
        assert (identity == -1) == (items[one] is None)
        for other, theirs in zip(kept, garments.identities.tolist(), strict=True):
            assert items[one] is None or (identity == theirs) == (items[one] == items[other])
    assert {one.kind: one.count for one in tally.oddities if one.left_out} == gone
    assert len(garments) + tally.num_left_out == count
    assert garments.record.num_photos == len({files[row] for row in kept})
    assert garments.record.rendered
