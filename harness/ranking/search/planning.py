"""How a search is cut into blocks: from what the hardware is, and how much memory it may take.

Legend: Q queries, G gallery rows, D dimensions of all models together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.types import InputError

DEFAULT_BYTES = 256 << 20
"""Of working memory on the host where nothing else is said."""

PAIRS_AT_ONCE = 1 << 18
"""That are scored exactly: their gallery rows are read in the order in which they lie."""

CANDIDATE_BYTES = 24
"""Of one candidate: two bounds and a row."""

PAIR_BYTES = 96
"""Of one pair while it is put in order and scored."""

_DEVICE_SHARE = 0.6  # of a GPU's free memory
_MOST_QUERIES = 4096
_MOST_ROWS = 4096  # of a gallery block on a CPU: beyond that the products leave the caches
_MOST_ROWS_GPU = 65536
_LANE_ROWS = 512  # of a gallery block that one of several lanes takes
_LEAST_LANE_ROWS = 192  # with fewer, the products slow down: fewer lanes of more threads are better
_SPARE, _SPARE_WIDE = 256, 768  # candidates beyond what is wanted: more dimensions crowd similarities together
_WIDE = 4096
_MOST_EXACT = 1024  # gallery rows that are scored exactly at once: they stay in a cache
_PADDING = 32  # columns: what matrix units take at once

Engine = Literal["torch", "faiss"]
Precision = Literal["32", "16", "bf16"]


@dataclass(frozen=True)
class SearchOptions:
    """How a search is computed; what it finds is the same whatever it is.

    Attributes:
        engine: what makes the products; auto: torch.
        precision: of the products; auto: bf16 where the CPU has matrix units for it, 16 on a GPU for features that
            are stored in it and bf16 for others, else 32. ``16`` on a CPU, and ``bf16`` on one without
            such units, are not faster and as ``32``; faiss always takes 32.
        devices: torch's names of them, such as ``cuda:0``; the gallery is dealt out to them. None: every GPU, or the
            CPU.
        memory_bytes: working memory of the host beside inputs and outputs; the blocks follow from it. None: 256 MiB.
        num_threads: of the CPU; None: as many as torch takes.
    """

    engine: Literal["auto", "torch", "faiss"] = "auto"
    precision: Literal["auto", "32", "16", "bf16"] = "auto"
    devices: tuple[str, ...] | None = None
    memory_bytes: int | None = None
    num_threads: int | None = None


@dataclass(frozen=True)
class SearchPlan:
    """What was decided.

    Attributes:
        engine: what makes the products.
        precision: of the products.
        devices: one or more.
        num_threads: of the CPU.
        query_rows: queries of a block.
        gallery_rows: gallery rows of a block.
        capacity: candidates of a query.
        widest: dimensions of the widest model.
        width: columns of a block: the dimensions of all models and what is added to them.
        exact_rows: gallery rows that are scored exactly at once.
        lanes: blocks of the gallery that are in work at once on a device.
        lane_threads: of the CPU for each.
    """

    engine: Engine
    precision: Precision
    devices: tuple[str, ...]
    num_threads: int
    query_rows: int
    gallery_rows: int
    capacity: int
    widest: int
    width: int
    exact_rows: int
    lanes: int
    lane_threads: int

    @property
    def host_bytes(self) -> int:
        """Working memory of the host."""
        item = 2 if self.precision == "bf16" else 4
        pools = 2 * len(self.devices) * self.query_rows * self.capacity * CANDIDATE_BYTES
        in_work = len(self.devices) * self.lanes * self.gallery_rows
        products = in_work * self.query_rows * item
        # Queries that are packed take twice the memory for a moment, when there are no blocks of the gallery.
        rows = max(in_work, self.query_rows) if self.precision == "bf16" else in_work
        blocks = (self.query_rows + rows) * self.width * item
        exact = (self.query_rows + self.exact_rows) * self.widest * 8
        pairs = min(PAIRS_AT_ONCE, self.query_rows * self.capacity) * PAIR_BYTES
        return pools + products + blocks + exact + pairs


def plan_search(
    num_queries: int, num_gallery: int, dimensions: Sequence[int], top_k: int, options: SearchOptions, is_half: bool
) -> SearchPlan:
    """Decide how to search.

    Args:
        num_queries: Q.
        num_gallery: G.
        dimensions: of each model.
        top_k: results of a query.
        options: what is wanted.
        is_half: whether all features are stored in half precision.

    Returns:
        The plan.

    Raises:
        InputError: an option is not possible here.
    """
    import torch

    for name, value, valid in (
        ("engine", options.engine, ("auto", "torch", "faiss")),
        ("precision", options.precision, ("auto", "32", "16", "bf16")),
    ):
        if value not in valid:
            raise InputError(f"search: {name} is one of {', '.join(valid)}, got {value!r}")
    for name, number in (("memory_bytes", options.memory_bytes), ("num_threads", options.num_threads)):
        if number is not None and number < 1:
            raise InputError(f"search: {name} must be at least 1, got {number}")
    devices = _devices(options.devices)
    engine: Engine = "faiss" if options.engine == "faiss" else "torch"
    on_gpu = devices[0] != "cpu"
    if engine == "faiss":
        precision: Precision = "32"
        if options.precision not in ("auto", "32"):
            raise InputError(f"search: faiss multiplies in precision 32, got {options.precision}; use engine torch")
    elif options.precision == "auto":
        precision = ("16" if is_half else "bf16") if on_gpu else ("bf16" if has_bf16_units() else "32")
    else:
        precision = options.precision
    if not on_gpu and (precision == "16" or (precision == "bf16" and not has_bf16_units())):
        precision = "32"
    num_threads = options.num_threads or torch.get_num_threads()
    budget = options.memory_bytes or DEFAULT_BYTES
    width = -(-(sum(dimensions) + 2) // _PADDING) * _PADDING
    item = 4 if precision == "32" else 2
    capacity = 4 * top_k + (_SPARE if width <= _WIDE else _SPARE_WIDE)
    widest = max(dimensions)
    query_bytes = width * item + widest * 8 + 2 * capacity * CANDIDATE_BYTES * len(devices)
    query_rows = _between(1, budget // 2 // query_bytes, min(num_queries, _MOST_QUERIES))
    row_bytes = len(devices) * (width * item + query_rows * item)
    num_rows = budget // 4 // row_bytes
    gallery_rows, lanes = _between(1, num_rows, min(num_gallery, _MOST_ROWS)), 1
    if not on_gpu and precision == "bf16":
        lanes = _between(1, min(num_rows, num_gallery) // _LEAST_LANE_ROWS, num_threads)
        rounds = -(-num_gallery // (lanes * _between(1, num_rows // lanes, _LANE_ROWS)))
        gallery_rows = -(-num_gallery // (lanes * rounds))  # every lane gets as many blocks
    if on_gpu:
        most = min(device_bytes(device) for device in devices) // 2 // (width * item + query_rows * 12)
        gallery_rows = _between(1, most, min(num_gallery, _MOST_ROWS_GPU))
    exact_rows = _between(1, budget // 16 // (8 * widest), min(num_gallery, _MOST_EXACT))
    return SearchPlan(
        engine=engine,
        precision=precision,
        devices=devices,
        num_threads=num_threads,
        query_rows=query_rows,
        gallery_rows=gallery_rows,
        capacity=capacity,
        widest=widest,
        width=width,
        exact_rows=exact_rows,
        lanes=lanes,
        lane_threads=max(1, num_threads // lanes),
    )


def device_bytes(device: str) -> int:
    """How much of a GPU's free memory a search may take."""
    import torch

    return int(torch.cuda.mem_get_info(device)[0] * _DEVICE_SHARE)


def has_bf16_units() -> bool:
    """Whether the CPU multiplies bfloat16 faster than float32."""
    import torch

    library = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not library._is_mkldnn_bf16_supported():  # type: ignore[no-untyped-call]
        return False
    if not all(hasattr(library, name) for name in ("_reorder_linear_weight", "_linear_pointwise")):
        return False  # a torch that packs otherwise
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def _devices(wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted is None:
        return tuple(f"cuda:{index}" for index in range(count)) or ("cpu",)
    there = ("cpu", *(f"cuda:{index}" for index in range(count)))
    named = tuple("cuda:0" if name == "cuda" else name for name in wanted)
    if not named or any(name not in there for name in named) or len({name == "cpu" for name in named}) > 1:
        raise InputError(
            f"search: devices are one or more of {', '.join(there)}, the CPU or GPUs but not both, got "
            f"{', '.join(wanted) or 'none'}"
        )
    return named


def _between(low: int, value: int, high: int) -> int:
    return max(low, min(value, high))
