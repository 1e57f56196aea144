"""The search for near hashes is exact: against all pairs, one by one."""

import numpy as np
import pytest

from harness.data.duplicates.near import MAX_DISTANCE, near_pairs


def slowly(hashes):
    values = [int(high) << 64 | int(low) for low, high in hashes.tolist()]
    return [
        [i, j]
        for i in range(len(values))
        for j in range(i + 1, len(values))
        if (values[i] ^ values[j]).bit_count() <= MAX_DISTANCE
    ]


def flipped(row, places):
    bits = np.unpackbits(row.view(np.uint8))
    bits[list(places)] ^= 1
    return np.packbits(bits).view(np.uint64)


@pytest.mark.parametrize("seed", range(4))
def test_all_near_pairs_are_found(seed):
    random = np.random.default_rng(seed)
    rows = [random.integers(0, 2**64, 2, dtype=np.uint64) for _ in range(60)]
    for _ in range(240):
        rows.append(
            flipped(rows[random.integers(len(rows))], random.choice(128, random.integers(0, 12), replace=False))
        )
    hashes = np.array(rows)[random.permutation(len(rows))]
    expected = slowly(hashes)
    assert len(expected) > 100
    assert near_pairs(hashes).tolist() == expected


def test_the_limit_is_met_exactly_wherever_the_bits_are():
    base = np.array([0x0123456789ABCDEF, 0xFEDCBA9876543210], np.uint64)
    one_a_band = [16 * band + band for band in range(7)]
    for places, is_near in (
        (one_a_band, True),
        (range(7), True),
        ([*one_a_band, 127], False),
        (range(120, 128), False),
    ):
        assert near_pairs(np.array([base, flipped(base, places)])).tolist() == ([[0, 1]] if is_near else [])


def test_equal_hashes_are_near_once():
    assert near_pairs(np.zeros((3, 2), np.uint64)).tolist() == [[0, 1], [0, 2], [1, 2]]


def test_none_and_one():
    assert near_pairs(np.zeros((0, 2), np.uint64)).shape == (0, 2)
    assert near_pairs(np.zeros((1, 2), np.uint64)).shape == (0, 2)
