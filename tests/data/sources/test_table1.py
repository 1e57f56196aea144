"""Table 1: the paper's counts beside ours."""

import numpy as np

from harness.data.sources import SOURCES
from harness.data.sources.table1 import SourceCounts, table1
from tests.data.test_garments import RECORD, garments


def test_without_data_there_are_only_the_papers_counts():
    rows = table1([])
    assert [(row.source, row.published_pairs, row.published_images) for row in rows] == [
        ("DeepFashion2", 873_234, 491_895),
        ("DARN", 91_390, 182_780),
        ("Street2Shop", 39_479, 416_840),
        ("Zalando", 16_253, 32_642),
        ("MVC", 36_656, 156_449),
        ("MPV", 13_524, 50_290),
    ]
    assert all(row.identities is None and row.images is None and not row.rendered for row in rows)
    assert {row.source for row in rows} == {"DeepFashion2", *SOURCES}


def test_splits_are_added_up_and_other_sources_come_last():
    drawn = RECORD.model_copy(update={"num_photos": 5, "rendered": True})
    rows = table1(
        [
            garments(source="Mine", identities=np.array([-1, -1, 3])),
            garments(source="DeepFashion2/train", identities=np.array([0, 4, 4])),
            garments(source="DeepFashion2/validation", record=drawn),
        ]
    )
    assert rows[0] == SourceCounts("DeepFashion2", 873_234, 491_895, 3, 7, True)
    assert rows[-1] == SourceCounts("Mine", None, None, 1, 2, False)
    assert len(rows) == 7
