"""Seconds of each phase and peak memory of k-reciprocal re-ranking, on made-up features of any size.

    python tests/benchmarks/full_size_reranking.py --rows 60000 --dimensions 256

The features, unit rows in half precision around centres, are written to disk a block at a time and read as memory maps,
as the harness reads embeddings. Compiling happens on a few rows before. Peak memory is that of this process while it
re-ranks, after the features are written: resident pages that belong to no file (the memory maps' own are reported
apart, since they can be given back). The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from harness.provenance import hardware
from harness.ranking.reranking import k_reciprocal
from harness.ranking.search import SearchOptions
from harness.timing import Stopwatch

_BLOCK_BYTES = 64 << 20


def write_features(folder: Path, num_rows: int, dimensions: int, model: int, rows_a_centre: int, spread: float) -> Path:
    """Unit rows around centres, (num_rows, dimensions) float16; a model's centres and noise are its own."""
    file = folder / f"m{model}.npy"
    array = np.lib.format.open_memmap(file, "w+", np.float16, (num_rows, dimensions))
    num_centres = max(1, num_rows // rows_a_centre)
    labels = np.random.default_rng(0).integers(0, num_centres, num_rows)
    rng = np.random.default_rng(model + 1)
    centres = rng.standard_normal((num_centres, dimensions), np.float32).astype(np.float16)
    size = max(1, _BLOCK_BYTES // (4 * dimensions))
    for start in range(0, num_rows, size):
        block = centres[labels[start : start + size]].astype(np.float32)
        block += spread * rng.standard_normal(block.shape, np.float32)
        array[start : start + size] = block / np.linalg.norm(block, axis=1, keepdims=True)
    array.flush()
    return file


class PeakMemory:
    """The largest resident memory while a block runs, sampled: anonymous pages, and pages of files."""

    def __enter__(self) -> PeakMemory:
        self.anonymous_gb = self.files_gb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.02):
            lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            anonymous, files = (int(lines[name].split()[0]) * 1024 / 1e9 for name in ("RssAnon", "RssFile"))
            self.anonymous_gb, self.files_gb = max(self.anonymous_gb, anonymous), max(self.files_gb, files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=60_000, help="queries and gallery together")
    parser.add_argument("--dimensions", type=int, default=256, help="of each model")
    parser.add_argument("--models", type=int, default=1)
    parser.add_argument("--queries", type=int, help="among the rows; a quarter of them if not given")
    parser.add_argument("--answered", type=int, help="answer only so many of the queries; all if not given")
    parser.add_argument("--rows-a-centre", type=int, default=12)
    parser.add_argument("--spread", type=float, default=0.9, help="of the noise, where that of the centres is 1")
    parser.add_argument("--k1", type=int, default=20)
    parser.add_argument("--k2", type=int, default=6)
    parser.add_argument("--devices", help="torch's names with commas between them")
    parser.add_argument("--folder", type=Path, help="for the features; a temporary one if not given")
    given = parser.parse_args()
    num_queries = given.rows // 4 if given.queries is None else given.queries
    options = SearchOptions(devices=tuple(given.devices.split(",")) if given.devices else None)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        files = [
            write_features(Path(folder), given.rows, given.dimensions, model, given.rows_a_centre, given.spread)
            for model in range(given.models)
        ]
        arrays = [np.load(file, mmap_mode="r") for file in files]
        began = time.perf_counter()
        few = [array[:400].copy() for array in arrays]
        k_reciprocal([rows[:100] for rows in few], [rows[100:] for rows in few], options=options)
        compiling_s = time.perf_counter() - began
        watch = Stopwatch()
        asked = None if given.answered is None else np.arange(min(given.answered, num_queries))
        began = time.perf_counter()
        with PeakMemory() as peak:
            ids, distances = k_reciprocal(
                [array[:num_queries] for array in arrays],
                [array[num_queries:] for array in arrays],
                given.k1,
                given.k2,
                query_rows=asked,
                options=options,
                stopwatch=watch,
            )
        seconds = time.perf_counter() - began
    result = {
        "rows": given.rows,
        "queries": num_queries,
        "answered": len(ids),
        "models": given.models,
        "dimensions": given.dimensions,
        "k1": given.k1,
        "k2": given.k2,
        "seconds": round(seconds, 3),
        "phases_s": {entry.stage: round(entry.seconds, 3) for entry in watch.stages},
        "first_call_s": round(compiling_s, 3),
        "peak_anonymous_gb": round(peak.anonymous_gb, 3),
        "peak_files_gb": round(peak.files_gb, 3),
        "mean_distance": float(distances.mean()) if distances.size else None,
        "devices": given.devices,
        "hardware": hardware(),
        "versions": {"numba": version("numba")},
    }
    print(json.dumps(result))  # noqa: T201


if __name__ == "__main__":
    main()
