"""Stacks of models: rows of several models' features side by side, each model with its weight.

The similarity of two rows of a stack is the weighted sum of the models' inner products, which is the inner product
of the concatenations of sqrt(weight) times the models' features. That concatenation exists in blocks alone.

Legend: N rows, D dimensions of all models together, M models, n rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.preflight import available_memory
from harness.ranking.rows import ChosenRows, FeatureRows, choose, place, refuse_short_file
from harness.types import Floats, InputError, Ints

if TYPE_CHECKING:
    import torch

BLOCK_BYTES = 32 << 20
"""Of a block, at most: larger ones compute no faster."""


def stack_weights(parts: Sequence[FeatureRows], weights: Sequence[float] | None, name: str) -> Floats:
    """The weights of a stack whose shapes fit together.

    Args:
        parts: one (N, D_m) of a floating type per model.
        weights: one positive number per model; None for 1 each.
        name: what the features are called in messages.

    Returns:
        (M,) float64.

    Raises:
        InputError: there is no model, the shapes or types are not these, a file is shorter than its shape, or a weight
            is not positive.
    """
    if not parts:
        raise InputError(f"{name}: expected the features of at least one model, got none")
    for model, part in enumerate(parts):
        if len(part.shape) != 2 or part.shape[1] == 0 or part.dtype.kind != "f":
            raise InputError(
                f"{name}, model {model}: expected floating-point features of shape (N, D), "
                f"got {part.dtype} of shape {part.shape}"
            )
        if len(part) != len(parts[0]):
            raise InputError(
                f"{name}, model {model}: has {len(part)} rows, model 0 has {len(parts[0])}; "
                "give the features of the same boxes for every model"
            )
        refuse_short_file(part)
    scale = np.ones(len(parts)) if weights is None else np.asarray(weights, np.float64)
    if scale.shape != (len(parts),) or not (np.isfinite(scale) & (scale > 0)).all():
        raise InputError(f"weights: expected {len(parts)} positive numbers, one per model, got {weights}")
    return scale


def same_models(parts: Sequence[FeatureRows], others: Sequence[FeatureRows], name: str, other_name: str) -> None:
    """Raise an `InputError` unless two stacks have the same number of models with the same dimensions."""
    widths, other_widths = ([part.shape[1] for part in stack] for stack in (parts, others))
    if widths != other_widths:
        raise InputError(
            f"{name} and {other_name}: expected the same models in the same order, "
            f"got {widths} and {other_widths} dimensions"
        )


def sampled(parts: Sequence[FeatureRows], rows: Ints) -> list[FeatureRows]:
    """The same rows of every model, read where they lie."""
    return [
        ChosenRows(part.array, part.rows[rows]) if isinstance(part, ChosenRows) else choose(part, rows)  # type: ignore[arg-type]
        for part in parts
    ]


def block_rows(row_bytes: int, memory_bytes: int | None) -> int:
    """Rows of a block that fits in `BLOCK_BYTES` and in the memory given, at least 1."""
    room = BLOCK_BYTES if memory_bytes is None else min(BLOCK_BYTES, memory_bytes)
    return max(1, room // row_bytes)


def joined_blocks(
    parts: Sequence[FeatureRows], weights: Floats, num_rows: int, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[int, torch.Tensor]]:
    """The weighted concatenation, block by block.

    Args:
        parts: the stack.
        weights: (M,).
        num_rows: of a block.
        device: where the blocks are made.
        dtype: of the blocks.

    Yields:
        The first row of a block, and the block (n, D). It may be written to, and is overwritten by the next.
    """
    import torch

    widths = [part.shape[1] for part in parts]
    dtypes = {torch.float32: np.float32, torch.float64: np.float64}
    # Made once: to get fresh memory from the system takes several times as long as to fill it.
    host = np.empty((min(num_rows, len(parts[0])), sum(widths)), dtypes[dtype])
    columns = np.split(host, np.cumsum(widths)[:-1], axis=1)
    for start in range(0, len(parts[0]), num_rows):
        stop = min(start + num_rows, len(parts[0]))
        for part, weight, space in zip(parts, weights, columns, strict=True):
            with np.errstate(over="ignore"):  # what overflows is found where sums are looked at
                np.multiply(part[start:stop], host.dtype.type(weight**0.5), out=space[: stop - start], dtype=host.dtype)
        yield start, torch.from_numpy(host[: stop - start]).to(device)


def refuse_row(stacks: Sequence[tuple[str, Sequence[FeatureRows], Any]], otherwise: str) -> InputError:
    """The error for rows that lead to nothing usable: it names the first of them that is not finite.

    Args:
        stacks: what the features are called, the features, and which of their rows took part.
        otherwise: the message where all of them are finite.
    """
    for name, parts, rows in stacks:
        for model, part in enumerate(parts):
            for row in np.atleast_1d(rows):
                if not np.isfinite(part[int(row) : int(row) + 1]).all():
                    where = place(part, int(row), f"{name}, model {model}")
                    return InputError(f"{where} is not finite; embed that box again")
    return InputError(otherwise)


def device_of(name: str | None) -> torch.device:
    """The device of this name; None for the GPU where there is one."""
    import torch

    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def free_bytes(device: torch.device) -> int:
    """Bytes of a device's memory that may still be taken."""
    import torch

    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else available_memory() or 0


@contextmanager
def computing(num_threads: int | None) -> Iterator[None]:
    """In the block torch computes float32 in full precision, and in this many threads (None: as many as before)."""
    import torch

    if num_threads is not None and num_threads < 1:
        raise InputError(f"num_threads: expected at least 1, got {num_threads}")
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    torch.set_num_threads(threads if num_threads is None else num_threads)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads(threads)
