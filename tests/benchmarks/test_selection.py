"""Ensembles judged on lists of candidates against searching each of them, in one run.

What is timed: 1,000 ensembles of 17 models, random subsets and weights, on 12,000 queries and 20,000 gallery rows of
made-up garments of 64 dimensions a model; all 4,095 subsets of 12 of them; and, apart, the lists themselves and what
says which answers are proven. Only the lists depend on the dimensions. The baseline is the exact search of a single
ensemble. The ten best ensembles are searched exactly: their hits have to be the same where they are proven, and none
may be missed; how many answers differ is told. The models' errors here are independent, which is the worst case for
lists of candidates.
"""

import numpy as np
import pytest

from harness.ranking.selection.candidates import Candidates, exact_hits, gather
from harness.ranking.selection.outcomes import Outcomes

NUM_MODELS, DIMENSIONS, QUERIES, GALLERY, GARMENTS, ENSEMBLES, K = 17, 64, 12_000, 20_000, 6_000, 1000, 10
GROUP = f"selection: {NUM_MODELS} models, {QUERIES:,} queries"


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    asked, shown = rng.integers(0, GARMENTS, QUERIES), rng.integers(0, GARMENTS, GALLERY)
    kinds = rng.integers(0, 300, GARMENTS)  # garments that look alike to every model
    queries, gallery = [], []
    for noise in np.linspace(1.8, 2.8, NUM_MODELS):
        centres = rng.normal(size=(300, DIMENSIONS))[kinds] + 0.7 * rng.normal(size=(GARMENTS, DIMENSIONS))
        for garments, parts in ((asked, queries), (shown, gallery)):
            rows = (centres[garments] + noise * rng.normal(size=(len(garments), DIMENSIONS))).astype(np.float32)
            parts.append((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16))
    order = np.argsort(shown, kind="stable")
    starts = np.searchsorted(shown[order], np.arange(GARMENTS + 1))
    rights = [np.sort(order[starts[one] : starts[one + 1]]) for one in asked]
    return queries, gallery, np.concatenate([[0], np.cumsum([len(one) for one in rights])]), np.concatenate(rights)


@pytest.fixture(scope="module")
def candidates(features) -> Candidates:
    return gather(*features)


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    rng = np.random.default_rng(1)
    weights = rng.random((ENSEMBLES, NUM_MODELS)) * (rng.random((ENSEMBLES, NUM_MODELS)) < 0.5)
    weights[:, 0] += ~(weights > 0).any(axis=1)
    return weights


@pytest.mark.benchmark(group=GROUP)
def test_lists_of_candidates(benchmark, features) -> None:
    found = benchmark.pedantic(gather, features, rounds=1)
    benchmark.extra_info["things"] = None  # compares with no search
    benchmark.extra_info["candidates a query"] = len(found.rows) / QUERIES


@pytest.mark.benchmark(group=GROUP)
def test_a_thousand_ensembles(benchmark, features, candidates, weights) -> None:
    Outcomes(candidates, K).hits(weights[:1])  # compile
    hits = benchmark.pedantic(lambda: Outcomes(candidates, K).hits(weights), rounds=3)
    benchmark.extra_info["things"] = len(weights)
    best = np.argsort(-hits.sum(axis=1), kind="stable")[:10]
    proven = Outcomes(candidates, K).proven(weights[best])
    benchmark.extra_info["unproven share of the ten best"] = float(1 - proven.mean())
    benchmark.extra_info["acc of the best"] = float(hits[best[0]].mean())
    exact = np.stack([exact_hits(*features, weights[ensemble], K) for ensemble in best])
    benchmark.extra_info["answers of the ten best that the search gives otherwise"] = int((exact != hits[best]).sum())
    assert (exact == hits[best])[proven].all()
    assert hits[best][exact].all()
    assert (exact != hits[best]).mean() < 1e-3


@pytest.mark.benchmark(group=GROUP)
def test_all_subsets_of_twelve_models(benchmark, candidates) -> None:
    few = Candidates(
        candidates.starts, candidates.num_right, candidates.rows, candidates.similarities_Mn[:12],
        candidates.floors_QM[:, :12], candidates.joint_floors,
    )  # fmt: skip
    groups = np.random.default_rng(0).random((20, QUERIES)) < 0.5
    Outcomes(few, K).every_subset(groups, 1)
    benchmark.pedantic(lambda: Outcomes(few, K).every_subset(groups, 12), rounds=1)
    benchmark.extra_info["things"] = 2**12 - 1


@pytest.mark.benchmark(group=GROUP)
def test_what_is_proven_of_one_ensemble(benchmark, candidates, weights) -> None:
    outcomes = Outcomes(candidates, K)
    outcomes.proven(weights[:1])
    benchmark(outcomes.proven, weights[:1])
    benchmark.extra_info["things"] = None  # a bound, no search


@pytest.mark.benchmark(group=GROUP)
def test_baseline_one_ensemble_by_search(benchmark, features) -> None:
    benchmark.pedantic(exact_hits, (*features, np.ones(NUM_MODELS), K), rounds=1)
