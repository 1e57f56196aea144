"""Exact search of made-up features of any size, read from disk, and faiss on their stored concatenation beside it.

    python tests/benchmarks/full_size_search.py --queries 1000 --gallery 20000 --models 16 --folder /tmp/features

What is timed: `harness.ranking.search.nearest` on half-precision memory maps that were read once before, so that the
disk is not what is measured. GFLOP/s counts the products of queries and gallery alone. The peak that its share is of is
the best of a few products of large matrices in bfloat16 (half precision on a GPU), measured before and after. Peak
memory is that of the process, sampled every 5 ms: anonymous pages, how many of them are beyond what the libraries took
before (torch alone takes some 350 MiB to be imported), and pages of mapped files beside them.

With ``--compare N`` the search and faiss (``faiss.knn`` on the concatenation in float32, whose making is not counted)
run N times each in turn, each in a process of its own; with ``--in-turn N`` in one process, after a run of each that
does not count. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

BLOCK_ROWS = 8192


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--gallery", type=int, default=20_000)
    parser.add_argument("--models", type=int, default=16)
    parser.add_argument("--dimensions", type=int, default=1024)
    parser.add_argument("--top-k", type=int, default=20)
    parser.add_argument("--folder", type=Path, required=True, help="where the features are kept; made if missing")
    parser.add_argument("--features", choices=("clustered", "random"), default="clustered")
    parser.add_argument("--neighbours", action="store_true", help="search the gallery with itself, lowest too")
    parser.add_argument("--engine", choices=("auto", "torch", "faiss"), default="auto")
    parser.add_argument("--precision", choices=("auto", "32", "16", "bf16"), default="auto")
    parser.add_argument("--devices", nargs="+")
    parser.add_argument("--memory-mib", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--baseline", action="store_true", help="time faiss on the concatenation instead")
    parser.add_argument("--in-turn", type=int, metavar="N")
    parser.add_argument("--compare", type=int, metavar="N", help="both, N times each in turn")
    return parser.parse_args()


def features(arguments: argparse.Namespace, side: str, num_rows: int) -> list[Any]:
    """Memory maps of made-up unit rows, one a model; clusters of a dozen gallery rows of various tightness."""
    maps = []
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for model in range(arguments.models):
        shape = f"{arguments.features}-{arguments.gallery}x{arguments.dimensions}"
        path = arguments.folder / f"{shape}-{side}{num_rows}-{model}.npy"
        if not path.exists():
            draft = path.with_suffix(".draft")
            with draft.open("wb") as file:
                header = {"descr": "<f2", "fortran_order": False, "shape": (num_rows, arguments.dimensions)}
                np.lib.format.write_array_header_1_0(file, header)
                for start in range(0, num_rows, BLOCK_ROWS):
                    file.write(made_up(arguments, side, model, start, min(start + BLOCK_ROWS, num_rows)).tobytes())
            draft.rename(path)
        maps.append(np.load(path, mmap_mode="r"))
        maps[-1].max()  # read once
    return maps


def made_up(arguments: argparse.Namespace, side: str, model: int, start: int, stop: int) -> np.ndarray[Any, Any]:
    size = stop - start, arguments.dimensions
    number = 0 if side == "queries" else 1
    rows = np.random.default_rng([model, number, start]).standard_normal(size, np.float32)
    if arguments.features == "clustered":
        labels_rng = np.random.default_rng([10**6, number, start])  # every model sees the same garment in a row
        clusters = labels_rng.integers(max(1, arguments.gallery // 12), size=len(rows))
        spread = labels_rng.uniform(0.3, 1.2, size=(len(rows), 1)).astype(np.float32)
        centres = {}
        for cluster in np.unique(clusters):
            centres[cluster] = np.random.default_rng([model, 2, cluster]).standard_normal(size[1], np.float32)
        rows = np.stack([centres[cluster] for cluster in clusters]) + spread * rows + np.float32(0.5)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float16)


class Peak:
    """Peak memory of this process while it is open, in MiB."""

    def __enter__(self) -> Peak:
        self.anonymous, self.mapped = 0.0, 0.0
        self.look()
        self.libraries = self.anonymous
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def watch(self) -> None:
        while not self.stop.wait(0.005):
            self.look()

    def look(self) -> None:
        status = Path("/proc/self/status").read_text().split("\n")
        sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in status if line.startswith("Rss")}
        self.anonymous, self.mapped = max(self.anonymous, sizes["RssAnon"]), max(self.mapped, sizes["RssFile"])

    def __exit__(self, *_: object) -> None:
        self.look()
        self.stop.set()
        self.thread.join()


def measured_peak(device: str) -> float:
    """GFLOP/s of products of large square matrices."""
    import torch

    on_gpu = device != "cpu"
    size, dtype = (8192, torch.float16) if on_gpu else (4096, torch.bfloat16)
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out, best = torch.empty(size, size, dtype=dtype, device=device), float("inf")
    for _ in range(6):
        begin = time.perf_counter()
        torch.mm(left, right.T, out=out)
        if on_gpu:
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best / 1e9


def search(arguments: argparse.Namespace) -> dict[str, Any]:
    from harness.ranking.search import SearchOptions, nearest, neighbours, working_bytes

    gallery = features(arguments, "gallery", arguments.gallery)
    queries = gallery if arguments.neighbours else features(arguments, "queries", arguments.queries)
    options = SearchOptions(
        engine=arguments.engine,
        precision=arguments.precision,
        devices=tuple(arguments.devices) if arguments.devices else None,
        memory_bytes=arguments.memory_mib << 20 if arguments.memory_mib else None,
        num_threads=arguments.threads,
    )
    run = neighbours if arguments.neighbours else nearest
    small = [part[:256] for part in queries]
    run(small, small, min(arguments.top_k, 5), options=options)  # compiles the kernels
    seconds, cpu_seconds = [], []
    with Peak() as peak:
        for _ in range(arguments.repeats):
            begin, cpu_begin = time.perf_counter(), time.process_time()
            run(queries, gallery, arguments.top_k, options=options)
            seconds.append(time.perf_counter() - begin)
            cpu_seconds.append(time.process_time() - cpu_begin)
    planned = working_bytes(
        len(queries[0]), arguments.gallery, [arguments.dimensions] * arguments.models, arguments.top_k, options
    )
    found = {"planned_mib": round(planned / 2**20), "cpu_seconds": round(statistics.median(cpu_seconds), 3)}
    return figures(arguments, len(queries[0]), seconds, peak) | found


def baseline(arguments: argparse.Namespace) -> dict[str, Any]:
    import faiss

    if arguments.threads:
        faiss.omp_set_num_threads(arguments.threads)
    parts = (features(arguments, "queries", arguments.queries), features(arguments, "gallery", arguments.gallery))
    seconds, cpu_seconds, joined = [], [], []
    with Peak() as peak:  # the concatenation is its working memory
        for maps in parts:
            whole = np.empty((len(maps[0]), arguments.dimensions * len(maps)), np.float32)
            for model, part in enumerate(maps):
                whole[:, model * arguments.dimensions : (model + 1) * arguments.dimensions] = part
            joined.append(whole)
        for _ in range(arguments.repeats):
            begin, cpu_begin = time.perf_counter(), time.process_time()
            faiss.knn(joined[0], joined[1], arguments.top_k, metric=faiss.METRIC_INNER_PRODUCT)
            seconds.append(time.perf_counter() - begin)
            cpu_seconds.append(time.process_time() - cpu_begin)
    found = {"cpu_seconds": round(statistics.median(cpu_seconds), 3)}
    return figures(arguments, arguments.queries, seconds, peak) | found


def in_turn(arguments: argparse.Namespace) -> dict[str, Any]:
    import faiss

    from harness.ranking.search import SearchOptions, nearest

    queries = features(arguments, "queries", arguments.queries)
    gallery = features(arguments, "gallery", arguments.gallery)
    joined = [np.concatenate([np.asarray(part, np.float32) for part in parts], axis=1) for parts in (queries, gallery)]
    options = SearchOptions(precision=arguments.precision)
    ways = {
        "search": lambda: nearest(queries, gallery, arguments.top_k, options=options)[0],
        "faiss": lambda: faiss.knn(*joined, arguments.top_k, metric=faiss.METRIC_INNER_PRODUCT)[1],
    }
    same = float((ways["search"]() == ways["faiss"]()).mean())
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(arguments.in_turn):
        for name, run in ways.items():
            begin, cpu_begin = time.perf_counter(), time.process_time()
            run()
            taken[name].append((time.perf_counter() - begin, time.process_time() - cpu_begin))
    medians = {
        name: [round(statistics.median(one), 3) for one in zip(*both, strict=True)] for name, both in taken.items()
    }
    ratios = [round(theirs / ours, 2) for ours, theirs in zip(medians["search"], medians["faiss"], strict=True)]
    return {"same_ids": same, "seconds_and_cpu_seconds": medians, "faiss_by_search": ratios}


def figures(arguments: argparse.Namespace, num_queries: int, seconds: list[float], peak: Peak) -> dict[str, Any]:
    median = statistics.median(seconds)
    products = 2 * num_queries * arguments.gallery * arguments.models * arguments.dimensions
    return {
        "seconds": round(median, 3),
        "all_seconds": [round(each, 3) for each in seconds],
        "gflop_per_s": round(products / median / 1e9),
        "peak_anonymous_mib": round(peak.anonymous),
        "working_mib": round(peak.anonymous - peak.libraries),
        "peak_mapped_mib": round(peak.mapped),
    }


def hardware(device: str) -> dict[str, Any]:
    import torch

    if device != "cpu":
        return {"device": torch.cuda.get_device_name(device), "torch": torch.__version__}
    models = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().split("\n") if "model name" in line
    ]
    return {
        "device": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    rest = [each for each in sys.argv[1:] if not each.startswith("--compare")]
    if "--compare" in sys.argv:
        rest.remove(str(arguments.compare))
    kept: dict[str, list[dict[str, Any]]] = {"search": [], "faiss": []}
    for _ in range(arguments.compare):
        for name, extra in (("search", []), ("faiss", ["--baseline"])):
            command = [sys.executable, __file__, *rest, "--repeats", "1", *extra]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            kept[name].append(json.loads(done.stdout.splitlines()[-1]))
            sys.stderr.write(f"{name} {done.stdout.splitlines()[-1]}\n")
    medians = {
        name: {
            key: statistics.median(run[key] for run in runs)
            for key in ("seconds", "cpu_seconds", "peak_anonymous_mib", "working_mib")
        }
        for name, runs in kept.items()
    }
    ratios = {key: round(medians["faiss"][key] / medians["search"][key], 2) for key in medians["search"]}
    return {"medians": medians, "faiss_by_search": ratios}


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def main() -> None:
    arguments = parse()
    if arguments.neighbours:
        arguments.queries = arguments.gallery
    sizes = {
        key: getattr(arguments, key) for key in ("queries", "gallery", "models", "dimensions", "top_k", "features")
    }
    if arguments.in_turn:
        say(json.dumps(sizes | in_turn(arguments)))
    elif arguments.compare:
        say(json.dumps(sizes | compare(arguments)))
    elif arguments.baseline:
        say(json.dumps(sizes | {"what": "faiss"} | baseline(arguments)))
    else:
        device = arguments.devices[0] if arguments.devices else "cpu"
        found = search(arguments)
        peak = max(measured_peak(device) for _ in range(2))
        found |= {"measured_peak_gflop_per_s": round(peak), "share_of_peak": round(found["gflop_per_s"] / peak, 3)}
        say(json.dumps(sizes | {"what": "search"} | found | hardware(device)))


if __name__ == "__main__":
    main()
