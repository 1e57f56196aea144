"""The content-addressed store of stage results.

A result's address is the SHA-256 of everything that decides it: the stage and its version, its
parameters, the addresses of its inputs and the hashes of the checkpoints it ran. A folder holds

    <root>/<stage>/<address>/part-00003.parquet …   shards, as they come
    <root>/<stage>/<address>/manifest.json          written last; it makes the result exist

Files are written to a temporary name and renamed, so that whatever bears its final name is whole.
An interrupted stage goes on at its first missing shard. Every read compares the file with the
manifest's size and SHA-256: a damaged or foreign file is an `ArtifactError` that names it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from harness.provenance import machine
from harness.timing import shares_of
from harness.types import Detections, InputError

MANIFEST = "manifest.json"

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ArtifactError(InputError):
    """A stored result is damaged or not what its address says; the message names the file and the remedy."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a result.

    Attributes:
        stage: the stage's name, a folder of the store.
        version: raised whenever the stage's arithmetic changes, so that old results are not taken for new ones.
        params: JSON values.
        inputs: name of the input -> its address or fingerprint.
        checkpoints: model name -> SHA-256 of its weights.
    """

    stage: str
    version: int
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    checkpoints: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The recipe as plain JSON values."""
        return {
            "stage": self.stage,
            "version": self.version,
            "params": dict(self.params),
            "inputs": dict(self.inputs),
            "checkpoints": dict(self.checkpoints),
        }

    @property
    def address(self) -> str:
        """SHA-256 (hexadecimal) of the recipe's canonical JSON."""
        text = json.dumps(self.as_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A finished result of the store.

    Attributes:
        address: of the recipe.
        folder: where its files are.
        manifest: what was written when it was finished (recipe, files, facts, seconds, made_on, created).
    """

    address: str
    folder: Path
    manifest: Mapping[str, Any]

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the stage said of its result: counts, seconds, hardware."""
        facts: Mapping[str, Any] = self.manifest["facts"]
        return facts

    @property
    def seconds(self) -> float:
        """That making it took, with its share of what it was taken from."""
        return float(self.manifest["seconds"]) + float(self.facts.get("seconds_before", 0))

    @property
    def waiting_seconds(self) -> float | None:
        """Those of its ``seconds`` that its network waited for photos to be decoded and cut; None where not known."""
        told = self.manifest.get("waiting_seconds")
        return None if told is None else float(told)

    @property
    def made_on(self) -> str | None:
        """The machine whose seconds these are, as `harness.provenance.machine`; None in results of earlier versions.

        What was taken from another result (``of`` in the facts) cost most of them on the machine of that.
        """
        told = self.facts.get("made_on", self.manifest.get("made_on"))
        return None if told is None else str(told)

    def path(self, name: str) -> Path:
        """A file of the result, after comparing it with the manifest.

        Raises:
            ArtifactError: the file is missing, of another size, or its bytes are not those written.
        """
        path = self.folder / name
        listed = self.manifest["files"].get(name)
        if listed is None:
            raise ArtifactError(f"{self.folder / MANIFEST}: lists no file {name}; {_remedy(self.folder)}")
        if not path.exists():
            raise ArtifactError(f"{path}: is missing, though the manifest lists it; {_remedy(self.folder)}")
        size = path.stat().st_size
        if size != listed["bytes"]:
            raise ArtifactError(f"{path}: has {size} bytes, expected {listed['bytes']}; {_remedy(self.folder)}")
        if file_sha256(path) != listed["sha256"]:
            raise ArtifactError(f"{path}: its bytes are not those that were written; {_remedy(self.folder)}")
        return path

    def detections(self, name: str = "boxes.parquet") -> Detections:
        """A columnar file of boxes."""
        return read_detections(self.path(name))

    def array(self, name: str) -> NDArray[Any]:
        """A ``.npy`` file as a read-only memory map."""
        loaded: NDArray[Any] = np.load(self.path(name), mmap_mode="r", allow_pickle=False)
        return loaded


class Store:
    """The store in a folder (made when first written to)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, recipe: Recipe) -> Path:
        """Where the result of a recipe is or will be."""
        return self.root / recipe.stage / recipe.address

    def find(self, recipe: Recipe) -> Artifact | None:
        """The finished result of a recipe; None if it is missing or unfinished.

        Raises:
            ArtifactError: the manifest is not readable or belongs to another recipe.
        """
        folder = self.folder(recipe)
        path = folder / MANIFEST
        try:
            manifest = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ArtifactError(f"{path}: is damaged ({error}); {_remedy(folder)}") from error
        if not isinstance(manifest, dict) or manifest.get("recipe") != json.loads(json.dumps(recipe.as_json())):
            raise ArtifactError(f"{path}: belongs to another result than its folder says; {_remedy(folder)}")
        return Artifact(recipe.address, folder, manifest)

    def get(self, recipe: Recipe, make: Callable[[Draft], Mapping[str, Any]]) -> tuple[Artifact, bool]:
        """The result of a recipe, made if it is missing.

        Args:
            recipe: what decides the result.
            make: called with a `Draft` when the result is missing; returns the facts to keep in the manifest.

        Returns:
            The result, and whether it was made now.
        """
        found, made = self.get_many({"": recipe}, lambda drafts: {"": make(drafts[""])})
        return found[""], bool(made)

    def get_many(
        self,
        recipes: Mapping[str, Recipe],
        make: Callable[[Mapping[str, Draft]], Mapping[str, Mapping[str, Any]]],
    ) -> tuple[dict[str, Artifact], set[str]]:
        """Several results, of which the missing ones are made together (in one pass over the photos, say).

        Args:
            recipes: name -> recipe.
            make: called with a `Draft` per missing name; returns the facts per name.

        Returns:
            All results by name, and the names that were made now.
        """
        missing = [name for name, recipe in recipes.items() if self.find(recipe) is None]
        made: set[str] = set()
        with ExitStack() as locks:
            # In the order of their addresses, so that two processes cannot wait for each other.
            for name in sorted(missing, key=lambda name: recipes[name].address):
                folder = self.folder(recipes[name])
                folder.mkdir(parents=True, exist_ok=True)
                locks.enter_context(FileLock(folder.with_suffix(".lock")))
            # Another process may have finished some of them while this one waited.
            drafts = {name: Draft(self.folder(recipes[name])) for name in missing if self.find(recipes[name]) is None}
            if drafts:
                began = time.perf_counter()
                facts = make(drafts)
                took, told = time.perf_counter() - began, {name: _told(facts[name]) for name in drafts}
                if any(draft.resumed for draft in drafts.values()):
                    # What earlier runs took stands with the shards that they left: of several devices, added up.
                    took = max(took, sum(sum(one) for one in told.values() if one is not None))
                shares = shares_of(took, told)
                for name, draft in drafts.items():
                    draft.finish(recipes[name], facts[name], *shares[name], len(drafts))
                made = set(drafts)
        results: dict[str, Artifact] = {}
        for name, recipe in recipes.items():
            found = self.find(recipe)
            assert found is not None
            results[name] = found
        return results, made


class Draft:
    """A result while it is being made: whole files appear in its folder one by one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for left in folder.glob("*.part"):
            left.unlink()
        self.resumed = any(folder.glob("part-*"))

    def write(self, name: str, write: Callable[[Path], None]) -> Path:
        """Let ``write`` fill a temporary file, then give it its name.

        Raises:
            InputError: the disk is full.
        """
        return self._write_all([name], lambda parts: write(parts[0]))[0]

    def write_rows(
        self, names: Sequence[str], shapes: Sequence[tuple[int, int]], blocks: Iterable[Sequence[NDArray[np.float16]]]
    ) -> list[Path]:
        """Several ``.npy`` of float16 rows, filled side by side.

        Args:
            names: of the files.
            shapes: (N, D) of each.
            blocks: for every stretch of rows one (n, D) a file, N rows together.

        Raises:
            InputError: the disk is full.
        """

        def write(parts: Sequence[Path]) -> None:
            with ExitStack() as stack:
                files = [stack.enter_context(part.open("wb")) for part in parts]
                for file, shape in zip(files, shapes, strict=True):
                    _write_half_header(file, shape)
                done = 0
                for block in blocks:
                    for file, shape, rows in zip(files, shapes, block, strict=True):
                        _write_half_block(file, shape, rows)
                    done += len(block[0])
                assert all(done == shape[0] for shape in shapes)

        return self._write_all(names, write)

    def _write_all(self, names: Sequence[str], write: Callable[[Sequence[Path]], None]) -> list[Path]:
        paths = [self.folder / name for name in names]
        write_whole(paths, write)
        return paths

    def shard(self, index: int, suffix: str, write: Callable[[Path], None]) -> Path:
        """The shard of this index: what an interrupted run left, or what ``write`` makes of it now.

        A shard's SHA-256 stands in a file beside it, so that one damaged since is made anew.
        """
        path = self.shard_path(index, suffix)
        if self.has_shard(index, suffix):
            return path
        mark = path.with_name(path.name + ".sha256")
        self.write(path.name, write)
        self.write(mark.name, lambda part: _write_text(part, file_sha256(path)))
        return path

    def shard_path(self, index: int, suffix: str) -> Path:
        """Where the shard of this index is or will be."""
        return self.folder / f"part-{index:05d}{suffix}"

    def has_shard(self, index: int, suffix: str) -> bool:
        """Whether a whole, undamaged shard of this index is there already."""
        return self.is_whole(self.shard_path(index, suffix))

    @staticmethod
    def is_whole(path: Path) -> bool:
        """Whether a shard, of whatever draft, is there and undamaged."""
        mark = path.with_name(path.name + ".sha256")
        return path.exists() and mark.exists() and mark.read_text() == file_sha256(path)

    def drop_shards(self) -> None:
        """Remove the shards, once their content stands in a file of its own."""
        for path in self.folder.glob("part-*"):
            path.unlink()

    def finish(
        self, recipe: Recipe, facts: Mapping[str, Any], seconds: float, waiting: float | None, made_together: int
    ) -> None:
        """Write the manifest: from now on the result exists.

        Args:
            recipe: of the result.
            facts: to keep.
            seconds: that making it took; of a pass that made several its share, see `harness.timing.shares_of`.
            waiting: those of them that its network waited for photos; None where that is not known.
            made_together: results of the pass.
        """
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
            for path in sorted(self.folder.iterdir())
            if path.name != MANIFEST and path.suffix not in (".part", ".sha256")
        }
        manifest = {
            "recipe": recipe.as_json(),
            "files": files,
            "facts": dict(facts),
            "seconds": seconds,
            "waiting_seconds": waiting,  # None: then the results of a pass share its seconds equally
            "made_together": made_together,
            "made_on": machine(),
            "resumed": self.resumed,  # then of earlier runs only what stands with their shards is in the seconds
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        text = json.dumps(manifest, indent=1, sort_keys=True)
        self.write(MANIFEST, lambda part: _write_text(part, text))


def _told(facts: Mapping[str, Any]) -> tuple[float, float] | None:
    """What a stage says that its network took, and its part of the waiting."""
    network, waiting = facts.get("network_seconds"), facts.get("waiting_seconds")
    return None if network is None or waiting is None else (float(network), float(waiting))


def write_whole(paths: Sequence[Path], write: Callable[[Sequence[Path]], None]) -> None:
    """Let ``write`` fill temporary files, then give them their names: all are whole, or as they were.

    Args:
        paths: of the files.
        write: is given as many temporary paths in the same folders.

    Raises:
        InputError: the disk is full; nothing is left behind.
    """
    parts = [path.with_name(path.name + ".part") for path in paths]
    with named_when_full(paths[0]):
        try:
            write(parts)
            for part in parts:
                with part.open("rb+") as file:
                    os.fsync(file.fileno())
        except OSError:
            for part in parts:
                part.unlink(missing_ok=True)
            raise
    for part, path in zip(parts, paths, strict=True):
        os.replace(part, path)


@contextmanager
def named_when_full(path: Path) -> Iterator[None]:
    """Name the file that is being written where the disk is full.

    Raises:
        InputError: instead of the system's error, which often names no file.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise InputError(
            f"{path}: cannot be written, there is no room ({os.strerror(error.errno)}); "
            "make room and run again: what is finished is kept"
        ) from error


def file_sha256(path: Path) -> str:
    """SHA-256 (hexadecimal) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_detections(path: Path, detections: Detections) -> None:
    """Boxes as Parquet, one row a box: image_id, x1, y1, x2, y2 (pixels), score, category_id."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    boxes = detections.boxes_xyxy
    columns = {"image_id": detections.image_ids} | {name: boxes[:, i] for i, name in enumerate(_BOX_COLUMNS)}
    columns |= {"score": detections.scores, "category_id": detections.category_ids}
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_detections(path: Path) -> Detections:
    """What `write_detections` wrote.

    Raises:
        ArtifactError: the file is no Parquet file with these columns, or holds boxes that cannot be.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, memory_map=True)
        column = {name: table[name].to_numpy() for name in ("image_id", *_BOX_COLUMNS, "score", "category_id")}
        boxes = np.stack([column[name] for name in _BOX_COLUMNS], axis=1)
        return Detections(column["image_id"], boxes, column["score"], column["category_id"])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:  # what cannot be unpacked is an OSError
        raise ArtifactError(f"{path}: is not a file of boxes ({error}); {_remedy(path.parent)}") from error


def write_array(path: Path, rows: NDArray[Any]) -> None:
    """An array as ``.npy``."""
    whole = np.asarray(rows, order="C")
    # np.save would append its own ending to the temporary name, and tell of a full disk without its number.
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(whole))
        if whole.size:
            file.write(whole.data)


def join_arrays(path: Path, parts: Sequence[Path], shape: tuple[int, int]) -> None:
    """Several ``.npy`` of float16 rows as one, without holding more than one in memory.

    Args:
        path: the file to write.
        parts: the files, in order.
        shape: (N, D) of the whole.
    """
    write_half_rows(path, shape, (np.load(part, mmap_mode="r") for part in parts))


def write_half_rows(path: Path, shape: tuple[int, int], chunks: Iterable[NDArray[np.float16]]) -> None:
    """Rows of float16 that come one after the other, as one ``.npy``.

    Args:
        path: the file to write.
        shape: (N, D) of the whole.
        chunks: (n, D) each, N rows together.
    """
    done = 0
    with path.open("wb") as file:  # a memory map would end the process without a word where the disk is full
        _write_half_header(file, shape)
        for rows in chunks:
            _write_half_block(file, shape, rows)
            done += len(rows)
    assert done == shape[0]


def _write_half_header(file: BinaryIO, shape: tuple[int, int]) -> None:
    descr = np.lib.format.dtype_to_descr(np.dtype(np.float16))
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})


def _write_half_block(file: BinaryIO, shape: tuple[int, int], rows: NDArray[np.float16]) -> None:
    assert rows.dtype == np.float16
    assert rows.shape[1:] == shape[1:]
    file.write(np.ascontiguousarray(rows).data)


def write_json(path: Path, value: Any) -> None:
    """A value as JSON."""
    path.write_text(json.dumps(value))


_BOX_COLUMNS = ("x1", "y1", "x2", "y2")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)


def _remedy(folder: Path) -> str:
    return f"remove the folder {folder} and run again, it will be made anew"
