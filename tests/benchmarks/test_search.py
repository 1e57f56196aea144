"""Search of several models' features against faiss on their stored concatenation, in one run.

What is timed: the 20 best of 5,000 gallery rows for 500 queries, 4 models of 256 dimensions in half
precision. The baseline gets the concatenation in float32 for nothing; `nearest` reads the models'
own arrays, and its ids are those of a float64 search, which faiss alone does not promise.
`full_size_search.py` beside this file measures searches of any size, their memory too.
"""

import numpy as np
import pytest

from harness.ranking.search import SearchOptions, nearest, neighbours

NUM_MODELS, DIMENSIONS, QUERIES, GALLERY = 4, 256, 500, 5000
GROUP = "search: 4 models x 256, 500 queries, 5,000 gallery rows"


def unit_rows(rng, num_rows):
    rows = rng.normal(size=(num_rows, DIMENSIONS)).astype(np.float32)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    return [unit_rows(rng, QUERIES) for _ in range(NUM_MODELS)], [unit_rows(rng, GALLERY) for _ in range(NUM_MODELS)]


@pytest.mark.benchmark(group=GROUP)
@pytest.mark.parametrize("precision", ["auto", "32"])
def test_nearest(benchmark, features, precision) -> None:
    options = SearchOptions(devices=("cpu",), precision=precision)
    nearest(*features, 20, options=options)  # compiles the kernels
    ids, _ = benchmark(nearest, *features, 20, options=options)
    assert ids.shape == (QUERIES, 20)


@pytest.mark.benchmark(group=GROUP)
def test_nearest_by_faiss_in_blocks(benchmark, features) -> None:
    ids, _ = benchmark(nearest, *features, 20, options=SearchOptions(engine="faiss", devices=("cpu",)))
    assert ids.shape == (QUERIES, 20)


@pytest.mark.benchmark(group=GROUP)
def test_baseline_faiss_on_the_concatenation(benchmark, features) -> None:
    import faiss

    queries, gallery = (np.concatenate(parts, axis=1).astype(np.float32) for parts in features)
    _, ids = benchmark(faiss.knn, queries, gallery, 20, metric=faiss.METRIC_INNER_PRODUCT)
    ours, _ = nearest(*features, 20)
    assert (ids == ours).mean() > 0.99


@pytest.mark.benchmark(group="neighbours: 5,000 rows among themselves, 1 model x 256")
def test_neighbours(benchmark, features) -> None:
    rows = features[1][:1]
    neighbours(rows, rows, 30)
    found = benchmark(neighbours, rows, rows, 30)
    assert (found.ids[:, 0] == np.arange(GALLERY)).mean() > 0.99
