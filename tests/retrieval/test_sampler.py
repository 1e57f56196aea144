import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.retrieval.sampler import IdentityBatches


@st.composite
def crops(draw):
    counts = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)).filter(any), min_size=1, max_size=9))
    labels = [label for label, (shop, consumer) in enumerate(counts) for _ in range(shop + consumer)]
    views = [view for shop, consumer in counts for view in [False] * shop + [True] * consumer]
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(labels))
    return counts, np.array(labels)[order], np.array(views)[order]


@given(crops(), st.integers(1, 6), st.integers(1, 6), st.integers(0, 40), st.integers(0, 2**40))
def test_batches_are_balanced(case, num_identities, num_crops, step, seed):
    counts, labels, views = case
    batches = IdentityBatches(labels, views, num_identities, num_crops, seed)
    rows = np.array(batches.draw(step)).reshape(-1, num_crops)
    assert len(rows) == min(num_identities, len(counts))
    drawn = labels[rows]
    assert (drawn == drawn[:, :1]).all()  # the crops of an identity are side by side
    assert len(set(drawn[:, 0].tolist())) == len(rows)  # and no identity comes twice
    for members, label in zip(rows, drawn[:, 0], strict=True):
        shop, consumer = counts[label]
        assert len(set(members.tolist())) == min(num_crops, shop + consumer)  # no repeats while crops last
        if shop + consumer >= num_crops:
            expected_shop = min(shop, max(num_crops // 2, num_crops - consumer))
            assert (~views[members]).sum() == expected_shop


@given(crops(), st.integers(1, 6), st.integers(0, 2**40))
def test_an_epoch_shows_no_identity_twice_and_leaves_out_less_than_a_batch(case, num_identities, seed):
    counts, labels, views = case
    batches = IdentityBatches(labels, views, num_identities, 2, seed)
    first = 3 * batches.batches_per_epoch
    shown = [labels[row] for step in range(first, first + batches.batches_per_epoch) for row in batches.draw(step)[::2]]
    assert len(set(shown)) == len(shown)
    assert len(counts) - len(shown) < batches.num_identities


def test_a_batch_is_a_pure_function_of_seed_and_step():
    labels, views = np.repeat(np.arange(20), 6), np.tile([True, False, False], 40)
    first, again = (IdentityBatches(labels, views, 4, 4, 11) for _ in range(2))
    forwards = [first.draw(step) for step in range(12)]
    backwards = [again.draw(step) for step in reversed(range(12))]
    assert forwards == backwards[::-1]
    other = IdentityBatches(labels, views, 4, 4, 12)
    assert [other.draw(step) for step in range(12)] != forwards


@pytest.mark.parametrize(
    ("labels", "message"), [([], "at least one"), ([0, -1], "without identity"), ([0], "as many labels as views")]
)
def test_wrong_crops_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        IdentityBatches(np.array(labels, np.int64), np.zeros(len(labels) and 2, bool), 2, 2, 0)


@pytest.mark.parametrize(("num_identities", "num_crops"), [(0, 2), (2, 0)])
def test_empty_batches_are_refused(num_identities, num_crops):
    with pytest.raises(ValueError, match="at least 1"):
        IdentityBatches(np.zeros(2, np.int64), np.zeros(2, bool), num_identities, num_crops, 0)
