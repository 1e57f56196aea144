"""Principal components of an ensemble's features: fewer dimensions, and whitening.

A projection subtracts the mean of the weighted concatenation of all models' features, turns it into its principal
components, and brings the result to unit length. Whitening also divides every component by its standard deviation, so
that what many dimensions say together counts no more than what one says alone. A component's variance is first drawn
towards the mean variance of all dimensions by a small share, since dividing by a standard deviation near zero makes
rounding errors loud.

Legend: N rows, D dimensions of all models together, d components kept, M models.

Sources: H. Jégou, O. Chum 2012, "Negative evidences and co-occurences in image retrieval: the benefit of PCA and
whitening"; O. Ledoit, M. Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices" (the
form of the shrinkage).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from harness.ranking import principal
from harness.ranking.rows import FeatureRows
from harness.ranking.stacks import (
    BLOCK_BYTES,
    block_rows,
    computing,
    device_of,
    free_bytes,
    joined_blocks,
    refuse_row,
    sampled,
    stack_weights,
)
from harness.types import Floats, InputError, Ints, Progress

MAX_SAMPLES = 100_000
"""Rows that a projection is fitted on, at most, unless it is told otherwise."""

SHRINKAGE = 0.1
"""Share of the mean variance in every component's variance before whitening divides by its root.

Chosen on the rendered data set, where 0.03 to 0.5 do alike, and less than 0.01 loses: on four models and their fused
boxes (8,000 rows, 448 queries) Acc@10 rises from .688 to .739 with it, and to .730 with a hundredth.
"""

_VANISHING = 1e-6  # of the largest variance: below it lies the rounding of float16 features
_EQUAL = 1e-12  # of the mean's squared length: half a rounding error of float32 a number
_FORMAT = 1

_DAMAGE = (OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError, zipfile.BadZipFile)
"""What reading a damaged ``.npz`` raises, depending on where the damage is."""


@dataclass(frozen=True, eq=False)
class Projection:
    """Features of a stack of models to d dimensions; `fit_projection` makes one.

    Attributes:
        mean: (D,) float32, of the weighted concatenation.
        components: (D, d) float32, one a column, by descending variance; orthonormal, or divided by the (regularised)
            standard deviation where it whitens. The largest entry of a column is positive.
        variances: (d,) float64, of the rows that it was fitted on along each component.
        explained: share of the whole variance that the components hold, in [0, 1].
        num_samples: rows that it was fitted on.
        widths: (M,) dimensions of each model.
        weights: (M,) float64, of each model.
        whitens: whether components are divided by their standard deviation.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    variances: Floats
    explained: float
    num_samples: int
    widths: Ints
    weights: Floats
    whitens: bool

    @property
    def dimensions(self) -> int:
        """d."""
        return len(self.variances)

    def save(self, path: Path) -> None:
        """Write the projection as one ``.npz``, whatever the path ends in."""
        names = ("mean", "components", "variances", "explained", "num_samples", "widths", "weights", "whitens")
        with path.open("wb") as file:
            np.savez(file, format=_FORMAT, **{name: getattr(self, name) for name in names})

    @classmethod
    def load(cls, path: Path) -> Self:
        """What `save` wrote.

        Raises:
            InputError: the file is missing, damaged or no projection.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                held = {name: file[name] for name in file.files}
            if int(held.pop("format")) != _FORMAT:
                raise ValueError("it was written by another version")
            scalars = {"explained": float, "num_samples": int, "whitens": bool}
            found = cls(**held | {name: kind(held[name]) for name, kind in scalars.items()})
            found._check()
        except _DAMAGE as error:
            raise InputError(f"{path}: is not a whole projection ({error}); remove it and fit it again") from error
        return found

    def _check(self) -> None:
        d, D = self.components.shape[1], int(self.widths.sum())
        if self.mean.shape != (D,) or self.components.shape != (D, d) or self.variances.shape != (d,):
            raise ValueError(f"its shapes do not fit together: {self.mean.shape}, {self.components.shape}")
        if self.weights.shape != self.widths.shape:
            raise ValueError(f"it has {self.weights.shape} weights for {self.widths.shape} models")
        if not all(np.isfinite(value).all() for value in (self.mean, self.components, self.variances, self.weights)):
            raise ValueError("a number in it is not finite")

    def apply(
        self,
        parts: Sequence[FeatureRows],
        *,
        memory_bytes: int | None = None,
        num_threads: int | None = None,
        device: str | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.float16]:
        """`blocks` as one array, (N, d) float16."""
        out = np.empty((len(parts[0]) if parts else 0, self.dimensions), np.float16)
        start = 0
        for block in self.blocks(
            parts, memory_bytes=memory_bytes, num_threads=num_threads, device=device, progress=progress
        ):
            out[start : start + len(block)] = block
            start += len(block)
        return out

    def blocks(
        self,
        parts: Sequence[FeatureRows],
        *,
        memory_bytes: int | None = None,
        num_threads: int | None = None,
        device: str | None = None,
        progress: Progress | None = None,
    ) -> Iterator[NDArray[np.float16]]:
        """Project features, block by block.

        Args:
            parts: one (N, D_m) per model, in the order in which the projection was fitted; its weights are those of
                the fit.
            memory_bytes: for a block, beside the projection itself; None for 32 MiB.
            num_threads: of torch; None for as many as it has.
            device: torch's name of one; None for the GPU where there is one.
            progress: told of rows done.

        Yields:
            (n, d) float16 of unit length, N rows together.

        Raises:
            InputError: these are not the models that it was fitted on, a row is not finite, or it is the mean itself.
        """
        import torch

        stack_weights(parts, list(self.weights), "features")
        widths = [part.shape[1] for part in parts]
        if widths != self.widths.tolist():
            raise InputError(
                f"features: expected the models that the projection was fitted on, with {self.widths.tolist()} "
                f"dimensions, got {widths}; fit it for these"
            )
        where, num_rows = device_of(device), len(parts[0])
        components, mean = (torch.from_numpy(value).to(where) for value in (self.components, self.mean))
        size = block_rows(4 * sum(self.components.shape) + 8 * self.dimensions, memory_bytes)
        blocks = joined_blocks(parts, self.weights, size, where, torch.float32)
        for start in range(0, num_rows, size):
            with computing(num_threads):
                _, joined = next(blocks)
                joined -= mean
                projected = joined @ components
                lengths = torch.linalg.vector_norm(projected, dim=1, keepdim=True)
                wrong = torch.nonzero(~(torch.isfinite(lengths) & (lengths > 0))[:, 0])
                if len(wrong):
                    row = start + int(wrong[0])
                    raise refuse_row(
                        [("features", parts, row)],
                        f"features: row {row} is the mean of the rows that the projection was fitted on, so it has no "
                        "direction; embed that box again",
                    )
                block = (projected / lengths).half().cpu().numpy()
            yield block
            if progress is not None:
                progress(start + len(block), num_rows)


def fit_projection(
    parts: Sequence[FeatureRows],
    dimensions: int | None,
    *,
    whiten: bool,
    weights: Sequence[float] | None = None,
    shrinkage: float = SHRINKAGE,
    max_samples: int = MAX_SAMPLES,
    seed: int = 0,
    memory_bytes: int | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Projection:
    """Fit principal components to features.

    Few rows or few dimensions, and many components, are computed exactly in float64; few components of more than
    2,048 dimensions (and rows) in a block Krylov subspace, until a pass adds less than 1/10,000 to the variance they
    hold. Two fits of the same features are equal to the bit on the same machine.

    Fit on consumer and shop rows together, labels are not needed: the mean and the variances of shop photos alone are
    not those of consumer photos (Acc@10 .721 instead of .739 in the case that `SHRINKAGE` tells of).

    Args:
        parts: one (N, D_m) per model; floats, memory maps welcome.
        dimensions: d, from 1 to the smaller of D and the rows less one; None for as many as that.
        whiten: divide each component by its standard deviation. A component of less than a millionth of the largest
            variance, which is rounding, is left out: it projects to 0.
        weights: one positive number per model; None for 1 each.
        shrinkage: in [0, 1], for whitening: a component's variance v counts as (1 - shrinkage) * v + shrinkage * mean
            variance of the D dimensions. 0 whitens fully; 1 does not whiten.
        max_samples: fit on so many rows, drawn at random, where there are more.
        seed: of the draw and of the Krylov subspace.
        memory_bytes: to compute in, beside the features; None for half of what is free.
        num_threads: of torch; None for as many as it has.
        device: torch's name of one; None for the GPU where there is one.
        progress: told of rows read, over all passes; the number of passes of a Krylov subspace is a guess.

    Raises:
        InputError: shapes or weights do not fit, a row is not finite (it is named), all rows are equal, d is too
            large, or the memory is too small.
    """
    scale = stack_weights(parts, weights, "features")
    if not 0 <= shrinkage <= 1:
        raise InputError(f"shrinkage: expected a number from 0 to 1, got {shrinkage}")
    num_rows, width = min(len(parts[0]), max_samples), sum(part.shape[1] for part in parts)
    most = min(num_rows - 1, width)
    wanted = most if dimensions is None else dimensions
    if not 1 <= wanted <= most:
        raise InputError(
            f"dimensions: expected 1 to {most}, got {wanted}: {num_rows} rows of {width} dimensions have no more "
            "principal components; ask for fewer, or fit on more rows"
        )
    where = device_of(device)
    room = free_bytes(where) // 2 if memory_bytes is None else memory_bytes
    method = principal.choose_method(num_rows, width, wanted, room)
    needed = principal.method_bytes(method, num_rows, width, wanted)
    if needed > room:
        raise InputError(
            f"{wanted} principal components of {num_rows} rows of {width} dimensions need {needed / 2**30:.1f} GiB, "
            f"and {room / 2**30:.1f} GiB may be taken; ask for fewer components (an eighth of the dimensions or less "
            "needs little), or fit where there is more memory"
        )
    if num_rows < len(parts[0]):
        parts = sampled(parts, np.sort(np.random.default_rng(seed).choice(len(parts[0]), num_rows, replace=False)))
    advance = principal.Advance(progress, num_rows * (8 if method == "krylov" else 2))
    rows = principal.Rows(parts, scale, where, room - needed, advance)
    with computing(num_threads):
        mean = principal.mean_of(rows)
        if method == "krylov":
            directions, variances, total = principal.by_krylov(rows, mean, wanted, seed)
        else:
            exact = principal.by_covariance if method == "covariance" else principal.by_products
            directions, variances, total = exact(rows, mean, wanted)
        if total <= _EQUAL * float(mean.square().sum()):
            raise InputError(f"features: all {num_rows} rows are equal, so they have no principal components")
        largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
        directions *= (largest >= 0) * 2 - 1
        if whiten:
            regular = (1 - shrinkage) * variances + shrinkage * total / width
            directions *= (variances > _VANISHING * variances[0]) / regular.clamp(min=1e-300).sqrt()
        advance.end()
        return Projection(
            mean.float().cpu().numpy(),
            directions.float().cpu().numpy(),
            variances.double().cpu().numpy(),
            min(1.0, float(variances.sum()) / total),
            num_rows,
            np.array([part.shape[1] for part in parts]),
            scale,
            whiten,
        )


def fit_bytes(num_rows: int, widths: Sequence[int], dimensions: int | None, max_samples: int = MAX_SAMPLES) -> int:
    """Bytes of memory that `fit_projection` takes where it may choose, beside the features themselves.

    Args:
        num_rows: N.
        widths: (M,) dimensions of each model.
        dimensions: d; None for all.
        max_samples: as for `fit_projection`.
    """
    num_rows, width = min(num_rows, max_samples), sum(widths)
    wanted = min(num_rows - 1, width) if dimensions is None else dimensions
    method = principal.choose_method(num_rows, width, wanted, None)
    return principal.method_bytes(method, num_rows, width, wanted) + BLOCK_BYTES
