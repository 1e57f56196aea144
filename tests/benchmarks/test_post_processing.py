"""Principal components, whitening, and the sums of expansion and augmentation, at two sizes: time and memory.

A student's gallery (60,000 rows of one model of 256 dimensions), and 20,000 rows of 16 models of 1,024, read from
memory maps in half precision. The features lie in a few hundred directions, as trained ones do: with variances that
all are alike the Krylov passes would be more. Neighbours are drawn, so that only the sums are timed; the search has
benchmarks of its own. ``peak MiB`` is the largest resident size of a fresh process that does nothing else, less what
it has after a tiny fit, which loads the libraries; pages of the memory maps are in it.
"""

import subprocess
import sys

import numpy as np
import pytest

from harness.ranking.expansion import combine, expansion_weights
from harness.ranking.whitening import Projection, fit_bytes, fit_projection

SMALL = "60,000 x 256"
LARGE = "20,000 x 16 x 1,024"
SIZES = {SMALL: (60_000, 1, 256, 64), LARGE: (20_000, 16, 1024, 512)}
K = 5

PEAK = """
import sys
import numpy as np, torch
from pathlib import Path
from harness.ranking.whitening import Projection, fit_projection
folder, models, dimensions = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
def largest_kib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
fit_projection([np.random.default_rng(0).normal(size=(3000, 256))], 8, whiten=True, device="cpu")
before = largest_kib()
parts = [np.load(folder / f"{model}.npy", mmap_mode="r") for model in range(models)]
fit_projection(parts, dimensions, whiten=True, device="cpu")
print((largest_kib() - before) / 1024)
"""


@pytest.fixture(scope="module", params=SIZES)
def size(request):
    return request.param


@pytest.fixture(scope="module")
def folder(size, tmp_path_factory):
    rng = np.random.default_rng(0)
    num_rows, num_models, dimensions, _ = SIZES[size]
    where = tmp_path_factory.mktemp("features")
    fall = np.arange(1, 401, dtype=np.float32) ** -0.5
    garments = rng.standard_normal((num_rows, 400), np.float32) * fall
    for model in range(num_models):
        seen_by = rng.standard_normal((400, dimensions), np.float32) / np.sqrt(dimensions)
        rows = garments @ seen_by + 0.01 * rng.standard_normal((num_rows, dimensions), np.float32)
        np.save(where / f"{model}.npy", (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16))
    return where


@pytest.fixture(scope="module")
def parts(size, folder):
    return [np.load(folder / f"{model}.npy", mmap_mode="r") for model in range(SIZES[size][1])]


@pytest.fixture(scope="module")
def projection(size, parts) -> Projection:
    return fit_projection(parts, SIZES[size][3], whiten=True)


@pytest.mark.benchmark(group="post-processing")
def test_fit(benchmark, size, folder, parts) -> None:
    num_rows, num_models, dimensions, wanted = SIZES[size]
    fitted = benchmark.pedantic(fit_projection, (parts, wanted), {"whiten": True}, rounds=3, warmup_rounds=1)
    peak = subprocess.run(
        [sys.executable, "-c", PEAK, str(folder), str(num_models), str(wanted)], capture_output=True, text=True
    )
    assert peak.returncode == 0, peak.stderr
    maps = num_rows * num_models * dimensions * 2 / 2**20
    told = fit_bytes(num_rows, [dimensions] * num_models, wanted) / 2**20
    benchmark.extra_info |= {
        "explained": fitted.explained,
        "peak MiB": float(peak.stdout),
        "of them features MiB": maps,
        "told MiB": told,
    }
    assert float(peak.stdout) < told + maps


@pytest.mark.benchmark(group="post-processing")
def test_fit_exactly(benchmark, size, parts, monkeypatch) -> None:
    from harness.ranking import principal

    _, _, dimensions, _ = SIZES[size]
    some = parts[:4]  # all 16,384 dimensions take many minutes and 9 GiB
    wanted = min(512, dimensions // 4) if len(some) > 1 else 64
    nearly = fit_projection(some, wanted, whiten=False)
    monkeypatch.setattr(principal, "choose_method", lambda *_: "covariance")
    exact = benchmark.pedantic(fit_projection, (some, wanted), {"whiten": False}, rounds=1)
    benchmark.extra_info |= {"variance held, Krylov against exact": nearly.explained / exact.explained}
    assert nearly.explained > 0.999 * exact.explained


@pytest.mark.benchmark(group="post-processing")
def test_apply(benchmark, parts, projection) -> None:
    def apply() -> int:
        return sum(len(block) for block in projection.blocks(parts))

    assert benchmark.pedantic(apply, rounds=3, warmup_rounds=1) == len(parts[0])


@pytest.mark.benchmark(group="post-processing")
def test_combine(benchmark, parts) -> None:
    rng = np.random.default_rng(1)
    ids = rng.integers(0, len(parts[0]), (len(parts[0]), K))
    counts = expansion_weights(np.ones(ids.shape), "rank")

    def together() -> int:
        return sum(len(block[0]) for block in combine(parts, parts, ids, counts))

    assert benchmark.pedantic(together, rounds=3, warmup_rounds=1) == len(parts[0])
