"""The reader of DeepFashion2 folders, real or rendered: one split in, typed columns out."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.data.annotations import Problem, parse_annotation
from harness.data.layout import SplitFiles, consumer_mask_of_test, is_rendered, list_split, numbered_files, unpaired
from harness.types import Bools, Floats, InputError, Ints, Items, Photos, Progress, Split, SplitName

_CHUNK = 512
_THREADS = 4
_CHECK = "`run.py data check DIR` lists every problem of the data set"


@dataclass(frozen=True)
class ParsedAnnotations:
    """Everything read from a folder of annotations.

    Attributes:
        items: the sound items.
        is_consumer: (A,) int8 per file: 1 consumer, 0 shop, -1 not said.
        digests: (A, 32) uint8, the SHA-256 of each file.
        problems: everything wrong, in the order of the files.
    """

    items: Items
    is_consumer: NDArray[np.int8]
    digests: NDArray[np.uint8]
    problems: list[Problem]


def read_split(root: Path, name: SplitName, *, progress: Progress | None = None) -> Split:
    """One split of a DeepFashion2 folder.

    Args:
        root: the folder that holds ``train``, ``validation`` and ``test``.
        name: which of them.
        progress: called with annotation files done and in total.

    Returns:
        photos and items in the order of image id and item number; ``items`` is None for a test split
        without annotations, whose consumer photos are told by `consumer_mask_of_test`.

    Raises:
        InputError: a folder or file is missing, a name or a field is wrong (the first problem is named).
    """
    files = list_split(root, name)
    _raise_first(files.problems)
    items, is_consumer, digests = None, None, None
    if files.annotation_ids is None:
        is_consumer = consumer_mask_of_test(root, files.photo_ids)
    else:
        parsed = parse_annotations(root / name / "annos", files.annotation_ids, progress=progress)
        _raise_first(parsed.problems)
        items, is_consumer, digests = parsed.items, parsed.is_consumer == 1, parsed.digests
    return Split(
        root=root,
        name=name,
        photos=Photos(files.photo_ids, is_consumer),
        items=items,
        fingerprint=_fingerprint(files, is_consumer, digests),
        rendered=is_rendered(root, name),
    )


def read_items(annotation_dir: Path, image_ids: Ints, *, progress: Progress | None = None) -> Items:
    """The items of a folder of annotations that is kept apart from its photos, such as a test split's truth.

    Args:
        annotation_dir: the folder that holds ``000001.json`` …
        image_ids: (P,) the photos that must be annotated there, ascending.
        progress: called with annotation files done and in total.

    Returns:
        the items in the order of image id and item number.

    Raises:
        InputError: the folder or an annotation is missing, one has no photo, or a field is wrong.
    """
    if not annotation_dir.is_dir():
        raise InputError(f"{annotation_dir}: no such folder; expected annotations 000001.json … in it")
    annotation_ids, _, problems = numbered_files(annotation_dir, ".json")
    _raise_first(problems)
    _raise_first(unpaired(annotation_dir, image_ids, annotation_dir, annotation_ids))
    parsed = parse_annotations(annotation_dir, annotation_ids, progress=progress)
    _raise_first(parsed.problems)
    return parsed.items


def read_items_of(root: Path, name: SplitName, image_ids: Ints) -> Items:
    """The items of some photos of a split, from their annotations alone: no photo needs to be there.

    Args:
        root: the folder that holds ``train``, ``validation`` and ``test``.
        name: which of them; annotations that are kept apart in ``<root>/<name>_truth/annos`` are found too.
        image_ids: (P,) which photos.

    Returns:
        the items in the order of image id and item number.

    Raises:
        InputError: the folder or an annotation is missing, or a field is wrong.
    """
    folders = [root / name / "annos", root / f"{name}_truth" / "annos"]
    folder = next((one for one in folders if one.is_dir()), None)
    if folder is None:
        raise InputError(f"{folders[0]}: no such folder; expected annotations 000001.json … in it")
    parsed = parse_annotations(folder, np.unique(image_ids))
    _raise_first(parsed.problems)
    return parsed.items


def with_truth(split: Split, annotation_dir: Path | None = None, *, progress: Progress | None = None) -> Split:
    """A split without annotations, joined with a truth that is kept apart.

    Args:
        split: the split; one that has items comes back as it is.
        annotation_dir: the folder of the annotations; ``<root>/<name>_truth/annos`` if None.
        progress: called with annotation files done and in total.

    Returns:
        the same split with items; photos and fingerprint do not change.

    Raises:
        InputError: as for `read_items`.
    """
    if split.items is not None:
        return split
    folder = annotation_dir or split.root / f"{split.name}_truth" / "annos"
    return replace(split, items=read_items(folder, split.photos.image_ids, progress=progress))


def read_polygons(annotation_dir: Path, image_id: int) -> dict[int, list[Floats]]:
    """The segmentation of one photo's items, for detectors that learn masks.

    Args:
        annotation_dir: the folder of the annotations, ``<root>/<split>/annos``.
        image_id: which photo.

    Returns:
        for every item number its polygons, (V, 2) float64 pixels each with V >= 3; an empty list for an
        item without a usable polygon.

    Raises:
        InputError: the file is missing or a field is wrong.
    """
    file = annotation_dir / f"{image_id:06d}.json"
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); {_CHECK}") from error
    annotation = parse_annotation(data, str(file))
    _raise_first(annotation.problems)
    return {numbers[0]: polygons for numbers, polygons in zip(annotation.numbers, annotation.polygons(), strict=True)}


def parse_annotations(
    annotation_dir: Path, image_ids: Ints, *, thorough: bool = False, progress: Progress | None = None
) -> ParsedAnnotations:
    """The given annotation files, read and checked.

    Args:
        annotation_dir: the folder of the files.
        image_ids: (A,) which files.
        thorough: as for `harness.data.annotations.parse_annotation`.
        progress: called with files done and in total.

    Returns:
        the sound items and every problem; nothing is raised for the contents of a file.
    """
    chunks = [image_ids[start : start + _CHUNK].tolist() for start in range(0, len(image_ids), _CHUNK)]
    integers: list[NDArray[np.int64]] = [np.zeros((0, 10), np.int64)]
    boxes: list[NDArray[np.float64]] = [np.zeros((0, 4))]
    sources: list[int] = []
    digests: list[bytes] = []
    problems: list[Problem] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for done, chunk in enumerate(pool.map(lambda ids: _parse_chunk(annotation_dir, ids, thorough), chunks)):
            integers.append(chunk[0])
            boxes.append(chunk[1])
            sources += chunk[2]
            digests += chunk[3]
            problems += chunk[4]
            if progress is not None:
                progress(min((done + 1) * _CHUNK, len(image_ids)), len(image_ids))
    columns = np.concatenate(integers)
    ids, source, number, category, style, pair, scale, occlusion, zoom_in, viewpoint = columns.T
    order = np.lexsort((number, ids))
    rows = Items(
        ids, number, source == 1, np.concatenate(boxes), category, style, pair, scale, occlusion, zoom_in, viewpoint
    )
    return ParsedAnnotations(
        items=rows.take(order),
        is_consumer=np.array(sources, np.int8),
        digests=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32),
        problems=problems,
    )


_Chunk = tuple[NDArray[np.int64], NDArray[np.float64], list[int], list[bytes], list[Problem]]


def _parse_chunk(annotation_dir: Path, image_ids: list[int], thorough: bool) -> _Chunk:
    integers: list[tuple[int, ...]] = []
    boxes: list[list[float]] = []
    sources: list[int] = []
    digests: list[bytes] = []
    problems: list[Problem] = []
    folder = str(annotation_dir)
    for image_id in image_ids:
        file = f"{folder}/{image_id:06d}.json"
        data, source = b"", -1
        try:
            with open(file, "rb", buffering=0) as stream:
                data = stream.read()
        except OSError as error:
            problems.append(Problem(file, f"cannot be read ({error.strerror})"))
        else:
            annotation = parse_annotation(data, file, thorough=thorough)
            source = -1 if annotation.is_consumer is None else int(annotation.is_consumer)
            integers += [(image_id, source, *numbers) for numbers in annotation.numbers]
            boxes += annotation.boxes_xyxy
            problems += annotation.problems
        sources.append(source)
        digests.append(hashlib.sha256(data).digest())
    return (
        np.array(integers, np.int64).reshape(-1, 10),
        np.array(boxes, np.float64).reshape(-1, 4),
        sources,
        digests,
        problems,
    )


def _fingerprint(files: SplitFiles, is_consumer: Bools, digests: NDArray[np.uint8] | None) -> str:
    """SHA-256 over names, sizes and kinds of the photos and the bytes of the annotations.

    The split's name is no part of it, so the same photos under another name are recognised.
    """
    digest = hashlib.sha256(b"deepfashion2 split, form 1\n")
    for column in (files.photo_ids, files.photo_bytes, is_consumer.astype(np.int64)):
        digest.update(column.astype("<i8").tobytes())
    if digests is not None:
        digest.update(digests.tobytes())
    return digest.hexdigest()


def _raise_first(problems: list[Problem]) -> None:
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        more = f" (and {len(fatal) - 1:,} more)" if len(fatal) > 1 else ""
        raise InputError(f"{fatal[0]}{more}; {_CHECK}")
