"""Embed boxes with trained retrievers; every photo is decoded once for all of them.

Legend: N boxes, B crops of a call, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from harness.retrieval.card import RetrieverCard
from harness.retrieval.embedding_settings import Precision
from harness.retrieval.prefetch import CropSize, crops_ahead
from harness.timing import PassClock
from harness.types import Detections, InputError, Ints, Progress, Split

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.retrieval.encoders import EncoderCard

CHUNK = 64
"""Crops that go through a network together; a smaller last chunk is filled up with black crops.

Libraries choose other kernels for other batch sizes, which round otherwise: with one size, the
embedding of a crop does not depend on how many crops it is asked for with.
"""


class Embedder(Protocol):
    """What `embed` needs of a model: `Retriever`, and the untrained `ColourHistogram`."""

    @property
    def name(self) -> str:
        """Who it is."""

    @property
    def dimensions(self) -> int:
        """D."""

    @property
    def input_wh(self) -> tuple[int, int]:
        """Width and height of its crops, px."""

    @property
    def margin(self) -> float:
        """Context around the box, as a share of its sides."""

    def embed(self, crops_BHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, h, w, 3) uint8 to (B, D) float32 of unit length."""


class Retriever:
    """A trained model, ready to embed; `Retriever.load` makes one.

    Attributes:
        card: what it was trained on and how.
        name: of the model.
        dimensions: D.
        input_wh: width and height of its crops, px.
        margin: context around the box, as a share of its sides.
    """

    def __init__(
        self, card: RetrieverCard | EncoderCard, network: nn.Module, device: torch.device, *, flip: bool = False
    ) -> None:
        self.card = card
        self.name = card.name
        self.dimensions = card.recipe.output_dim
        self.input_wh = card.recipe.input_wh
        self.margin = card.recipe.margin
        self._network = network
        self._device = device
        self._flip = flip
        self._precision: Precision = "32"

    def compute_in(self, precision: Precision) -> Self:
        """Let the network compute in this arithmetic from now on; embeddings differ by rounding."""
        self._precision = precision
        return self

    @classmethod
    def load(cls, model_dir: Path, *, device: str | None = None, flip: bool = False) -> Self:
        """Load the model of a folder that `train` filled.

        Args:
            model_dir: holds ``card.json`` and ``weights.pt``.
            device: torch's name of a device; None for the GPU where there is one.
            flip: add the embedding of the mirrored crop, for twice the time.

        Raises:
            InputError: there is no finished model, or the weights are not those the card names.
        """
        import torch

        from harness.retrieval.loading import load_network

        card, network = load_network(model_dir)
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        network = network.to(where, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        return cls(card, network, where, flip=flip)

    def embed(self, crops_BHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed crops.

        Args:
            crops_BHW3: (B, h, w, 3) uint8 of this model's `input_wh`, red, green, blue.

        Returns:
            (B, D) float32, each row of length 1, independent of the other rows.

        Raises:
            ValueError: the crops have another shape or type.
            InputError: the device has too little memory, or float16 is too narrow for the network.
        """
        import torch

        width, height = self.input_wh
        if crops_BHW3.dtype != np.uint8 or crops_BHW3.shape[1:] != (height, width, 3):
            raise ValueError(
                f"{self.name}: expected uint8 crops of shape (B, {height}, {width}, 3), "
                f"got {crops_BHW3.dtype} of shape {crops_BHW3.shape}"
            )
        vectors = np.empty((len(crops_BHW3), self.dimensions), dtype=np.float32)
        for start in range(0, len(crops_BHW3), CHUNK):
            chunk = crops_BHW3[start : start + CHUNK]
            filled = np.zeros((CHUNK, height, width, 3), dtype=np.uint8)
            filled[: len(chunk)] = chunk
            try:
                vectors[start : start + len(chunk)] = self._embed_chunk(filled)[: len(chunk)]
            except torch.OutOfMemoryError as error:
                raise InputError(
                    f"retriever {self.name}: {self._device} has too little memory for {CHUNK} crops of {width} x "
                    f"{height} px at once; end what else is on it, or name fewer models at a time"
                ) from error
        wrong = _not_of_unit_length(vectors)
        if wrong is not None and self._precision == "16":
            raise InputError(
                f"retriever {self.name}: an embedding has length {np.linalg.norm(vectors[wrong]):.3g} instead of 1 in "
                "float16, which knows no number above 65,504; use --precision bf16 or 32"
            )
        return vectors

    def embed_one_by_one(self, crops_BHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As `embed`, with a pass of the network for every crop: the plain way, for timings; unchecked."""
        return np.concatenate([self._embed_chunk(crops_BHW3[row : row + 1]) for row in range(len(crops_BHW3))])

    def _embed_chunk(self, crops_BHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch
        from torch.nn import functional

        from harness.retrieval.cgd import normalise

        low = torch.float16 if self._precision == "16" else torch.bfloat16
        with torch.inference_mode(), torch.autocast(self._device.type, low, enabled=self._precision != "32"):
            images = normalise(torch.from_numpy(crops_BHW3).to(self._device).permute(0, 3, 1, 2).float().div_(255))
            images = images.contiguous(memory_format=torch.channels_last)
            vectors, _ = self._network(images)
            if self._flip:
                vectors = functional.normalize(vectors + self._network(images.flip(3))[0], dim=1)
            embedded: NDArray[np.float32] = vectors.float().cpu().numpy()
            return embedded


def embed(
    retrievers: Sequence[Embedder],
    split: Split,
    boxes: Detections,
    *,
    batch_size: int = CHUNK,
    progress: Progress | None = None,
    num_threads: int | None = None,
    clock: PassClock | None = None,
) -> dict[str, NDArray[np.float16]]:
    """Embed every box with every model, decoding each photo once, ahead of the networks.

    Boxes that show the same pixels are embedded once.

    Args:
        retrievers: models of different names.
        split: where the photos are.
        boxes: N boxes of the split's photos.
        batch_size: crops gathered before models see them, at least 1; results do not depend on it.
        progress: called with boxes embedded and boxes in all.
        num_threads: that decode and cut, at least 1; None for all cores that this process may use.
        clock: is told what each model takes, and how long they wait for crops.

    Returns:
        For each model's name (N, D) float16, row-aligned with the boxes, rows of unit length up to half precision.

    Raises:
        InputError: two models have one name, a photo cannot be decoded, or an embedding is zero or not finite
            (the message names model and row).
    """
    from harness.workers import available_threads

    names = [retriever.name for retriever in retrievers]
    if len(set(names)) != len(names):
        raise InputError(f"models to embed with: a name comes twice in {', '.join(names)}; give each another name")
    threads = available_threads() if num_threads is None else num_threads
    if batch_size < 1 or threads < 1:
        raise ValueError("batch_size and num_threads: expected at least 1")
    total = len(boxes)
    vectors = {one.name: np.empty((total, one.dimensions), dtype=np.float16) for one in retrievers}
    if not retrievers or total == 0:
        return vectors
    sizes: list[CropSize] = list(dict.fromkeys((one.input_wh, one.margin) for one in retrievers))
    done = 0
    clock = clock or PassClock()
    for alike, crops in clock.waited_for(_batches_of_crops(split, boxes, sizes, batch_size, threads)):
        rows, places = np.concatenate(alike), np.repeat(np.arange(len(alike)), [len(some) for some in alike])
        for one in retrievers:
            with clock.network(one.name):
                found = one.embed(crops[one.input_wh, one.margin])
            vectors[one.name][rows] = _checked(one.name, found, alike)[places]
        done += len(rows)
        if progress is not None:
            progress(done, total)
    return vectors


def _checked(name: str, vectors_BD: NDArray[np.float32], alike: Sequence[Ints]) -> NDArray[np.float32]:
    place = _not_of_unit_length(vectors_BD)
    if place is not None:
        length = np.linalg.norm(vectors_BD[place])
        raise InputError(
            f"retriever {name}: the embedding of box row {alike[place][0]} has length {length:.3g} instead of 1; "
            "its training diverged or its weights are damaged: train it again with --force"
        )
    return vectors_BD


def _not_of_unit_length(vectors_BD: NDArray[np.float32]) -> int | None:
    wrong = ~(np.abs(np.linalg.norm(vectors_BD, axis=1) - 1) < 1e-3)  # NaN is wrong too
    return int(np.flatnonzero(wrong)[0]) if wrong.any() else None


def _batches_of_crops(
    split: Split, boxes: Detections, sizes: Sequence[CropSize], batch_size: int, num_threads: int
) -> Iterator[tuple[list[Ints], dict[CropSize, NDArray[np.uint8]]]]:
    """Crops of every size with the boxes that show them, `batch_size` crops at a time, photo by photo."""
    waiting_rows: list[Ints] = []
    waiting: dict[CropSize, list[NDArray[np.uint8]]] = {size: [] for size in sizes}
    for found in crops_ahead(split, boxes, sizes, num_threads):
        for place, rows in enumerate(found.rows):
            waiting_rows.append(rows)
            for size in sizes:
                waiting[size].append(found.crops[size][place])
            if len(waiting_rows) == batch_size:
                yield waiting_rows, {size: np.stack(waiting[size]) for size in sizes}
                waiting_rows, waiting = [], {size: [] for size in sizes}
    if waiting_rows:
        yield waiting_rows, {size: np.stack(waiting[size]) for size in sizes}
