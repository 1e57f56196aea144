import numpy as np
import pytest

from harness.scoring.comparison import about, compare_at_ranks, compare_files, paired_comparison
from harness.types import RANKS, InputError, Score
from tests.scoring.worlds import item, query, result, write

NAMES = ("one", "other")


def score(ranks, protocol="official") -> Score:
    return Score(protocol, len(ranks), np.array(ranks))


def test_a_difference_that_is_none_by_chance():
    found = paired_comparison(score([1] * 60 + [0] * 40), score([1] * 80 + [0] * 20), 10, NAMES)
    assert (found.first_acc, found.second_acc, found.num_queries) == (0.6, 0.8, 100)
    assert (found.test.only_first, found.test.only_second) == (0, 20)
    assert found.queries_needed == 47  # (1.96 sqrt(.2) + .8416 sqrt(.16))^2 / .04 = 36.8, for the exact test 46.2
    assert found.verdict.startswith("other beats one at Acc@10 (p = 1.9e-06)")
    assert "distinguishable from noise on these 100 queries; about 47 would show it" in found.verdict


def test_the_better_one_is_named_whichever_comes_first():
    strong, weak = score([1] * 80 + [0] * 20), score([1] * 60 + [0] * 40)
    assert paired_comparison(strong, weak, 10, NAMES).verdict.startswith("one beats other")


def test_a_difference_that_may_be_noise_says_how_many_queries_would_tell():
    found = paired_comparison(score([1] * 52 + [0] * 48), score([0] * 2 + [1] * 56 + [0] * 42), 1, NAMES)
    assert found.difference == pytest.approx(0.04)
    assert found.verdict == (
        "one and other are not distinguishable from noise at Acc@1 (p = 0.29) on these 100 queries; "
        "a difference of 0.0400 would take about 440 to show in 4 of 5 tries"
    )
    assert found.queries_needed == 439  # 390.1 by (1.96 sqrt(.08) + .8416 sqrt(.0784))^2 / .0016


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ([1, 1, 0, 0], "each gets the same queries right, of 4"),
        ([1, 0, 1, 0], "each gets 1 queries right that the other"),
    ],
)
def test_without_a_difference_no_number_of_queries_is_promised(second, words):
    found = paired_comparison(score([1, 1, 0, 0]), score(second), 5, NAMES)
    assert found.queries_needed is None
    assert words in found.verdict


def test_about():
    assert [about(n) for n in (6, 47, 439, 445, 161_414)] == [6, 47, 440, 440, 160_000]


def test_every_k_is_compared():
    found = compare_at_ranks(score([6, 1, 1, 0]), score([1, 1, 1, 16]), NAMES)
    assert tuple(found) == RANKS
    assert [one.test.only_second for one in found.values()] == [1, 1, 0, 0, 1]
    assert [one.k for one in found.values()] == list(RANKS)


def test_scores_of_other_questions_are_refused():
    with pytest.raises(InputError, match=r"their protocol differs \(official and strict\); score both on the same"):
        paired_comparison(score([1]), score([1], "strict"), 1, NAMES)
    with pytest.raises(InputError, match="their number of queries differs"):
        paired_comparison(score([1]), score([1, 1]), 1, NAMES)
    with pytest.raises(InputError, match="k: expected one of 1, 5, 10, 15, 20, got 2"):
        paired_comparison(score([1]), score([1]), 2, NAMES)


def test_two_files_are_compared_query_by_query(tmp_path):
    box = [0.0, 0.0, 10.0, 10.0]
    photos = range(1, 9)
    queries = [query(photo, box, pair_id=photo) for photo in photos]
    gallery = [item(100 + photo, box, pair_id=photo) for photo in photos]
    right = [result(photo, box, right={3: (100 + photo, box)}) for photo in photos]
    wrong = [result(photo, box) for photo in photos]
    first, query_file, gallery_file = write(tmp_path, wrong[:6] + right[6:], queries, gallery)
    (tmp_path / "better").mkdir()
    second, *_ = write(tmp_path / "better", right[:7] + wrong[7:], queries, gallery)
    found, warnings = compare_files(first, second, query_file, gallery_file)
    assert [one.split(": ")[:2] for one in warnings] == [[str(file), "gallery_image_id"] for file in (first, second)]
    assert (found[1].first_acc, found[1].second_acc, found[1].queries_needed) == (0, 0, None)
    assert (found[5].first_acc, found[5].second_acc) == (2 / 8, 7 / 8)
    assert (found[5].test.only_first, found[5].test.only_second) == (1, 6)
    assert str(second) in found[5].verdict  # both bear the same name, so the folders tell them apart
