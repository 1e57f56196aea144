"""Which rows of a leaderboard cannot be told apart, against McNemar's exact test for each pair, in one run.

What is timed: all pairs of 200 rows on 1,000 queries. The baseline is what anyone would write with SciPy or with the
test of this package; the kernel counts disagreements by a matrix product and looks the verdict up.
"""

import numpy as np
import pytest

from harness.scoring.significance import mcnemar_exact
from leaderboard.telling_apart import tied

ROWS, QUERIES = 200, 1000
GROUP = "who can be told from whom: 200 rows, 1,000 queries"


@pytest.fixture(scope="module")
def hits():
    """Rows that get about the same queries right, as ensembles do."""
    rng = np.random.default_rng(0)
    ease, strength = rng.normal(1, 1.5, QUERIES), rng.normal(0, 0.3, (ROWS, 1))
    return ease + strength + rng.normal(0, 0.5, (ROWS, QUERIES)) > 0


def one_by_one(hits):
    found = np.ones((len(hits), len(hits)), bool)
    for first in range(len(hits)):
        for second in range(first):
            found[first, second] = found[second, first] = mcnemar_exact(hits[first], hits[second]).p_value >= 0.05
    return found


@pytest.mark.benchmark(group=GROUP)
def test_tied(benchmark, hits) -> None:
    found = benchmark(tied, hits)
    assert 0.1 < found.mean() < 0.9


@pytest.mark.benchmark(group=GROUP)
def test_baseline_each_pair_by_itself(benchmark, hits) -> None:
    found = benchmark.pedantic(one_by_one, args=(hits,), rounds=3)
    assert (found == tied(hits)).all()
