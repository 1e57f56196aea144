"""Trained detectors: photos in, boxes in their pixels out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.detection.card import DetectorCard
from harness.detection.inference_settings import InferenceSettings
from harness.detection.test_time_augmentation import PhotoBoxes, View, merged, views
from harness.timing import PassClock
from harness.training.cards import WEIGHTS_FILE, read_trained
from harness.types import Detections, InputError, Ints, Progress, Split

if TYPE_CHECKING:
    from harness.detection.bridge import Found, Network
    from harness.detection.prefetch import Fitted


class Detector:
    """A trained detector, ready to look at photos.

    Attributes:
        card: what it is.
        settings: how it looks.
        views: the ways in which it looks at every photo.
        score_threshold: the lowest score that it reports.
        max_per_image: most boxes a photo.
    """

    def __init__(self, card: DetectorCard, network: Network, settings: InferenceSettings | None = None) -> None:
        self.card = card
        self.settings = settings or InferenceSettings()
        recipe, told = card.recipe, self.settings
        self.views = views(told, recipe.input_px)
        self.score_threshold = recipe.score_threshold if told.score_threshold is None else told.score_threshold
        self.max_per_image = told.max_per_image or recipe.max_per_image
        self._network = network.eval()
        self._network.limit(self.score_threshold, self.max_per_image)
        self._network.compute_in(told.precision)

    @classmethod
    def load(cls, model_dir: Path, device: str | None = None, settings: InferenceSettings | None = None) -> Detector:
        """The detector of a folder that `harness.detection.training.train` finished.

        Args:
            model_dir: the folder.
            device: torch's name of a device; None takes a GPU where there is one.
            settings: how to look; None as the recipe says.

        Raises:
            InputError: the folder has no finished detector, or its weights are not those of the card or of its
                network.
        """
        import torch

        from harness.detection.bridge import Network

        card = read_trained(model_dir, DetectorCard)
        network = Network(card.recipe.config, card.recipe.model)
        _load_weights(network, model_dir / WEIGHTS_FILE, card.name)
        network.only_boxes()
        return cls(card, network.to(device or ("cuda" if torch.cuda.is_available() else "cpu")), settings)

    @property
    def input_sizes(self) -> tuple[tuple[int, int], ...]:
        """Longest and shortest sides that photos are to be fitted to, without repeats."""
        return tuple(dict.fromkeys(view.input_px for view in self.views))

    def predict(self, photos: Sequence[NDArray[np.uint8]]) -> list[PhotoBoxes]:
        """The garments in each photo.

        Every photo is laid into an input whose size depends on it alone, so its neighbours in the
        batch do not change what is found (but for rounding: kernels may differ by batch size).

        Args:
            photos: (H, W, 3) uint8 RGB each, of any sizes.

        Raises:
            InputError: the network computed what is no number.
        """
        from harness.detection.prefetch import Fitted

        for row, photo in enumerate(photos):
            if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
                raise ValueError(f"photo {row}: expected uint8 of shape (H, W, 3), got {photo.dtype} {photo.shape}")
        order = _by_shape([(photo.shape[1], photo.shape[0]) for photo in photos])
        fitted = (Fitted.of(photos[row], self.input_sizes) for row in order)
        return _look([self], order, fitted, len(photos) or 1)[0]

    def look(
        self, view: View, photos: Sequence[NDArray[np.uint8]], sizes_wh: Sequence[tuple[int, int]]
    ) -> list[PhotoBoxes]:
        """What is in photos that share a canvas, seen in one way.

        Args:
            view: the way.
            photos: (h, w, 3) uint8 RGB each, fitted to the view's size.
            sizes_wh: width and height of each photo before it was fitted.

        Raises:
            InputError: the network computed what is no number, or the device has too little memory.
        """
        import torch

        from harness.detection import placement

        padding, device = self._network.padding_rgb, next(self._network.parameters()).device
        turned = [photo[:, ::-1] if view.flip else photo for photo in photos]
        laid = np.stack([placement.laid_snugly(photo, padding) for photo in turned])
        shapes = [(photo.shape[0], photo.shape[1]) for photo in photos]
        try:
            results = self._network.predict(torch.from_numpy(laid).to(device), shapes)
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"detector {self.card.name}: {device} has too little memory for {len(photos)} photos of "
                f"{laid.shape[2]} x {laid.shape[1]} px at once; give a smaller --batch-size"
            ) from error
        except FloatingPointError as error:
            remedy = "use --precision bf16 or 32" if self.settings.precision == "16" else "train it again with --force"
            raise InputError(f"detector {self.card.name}: {error}; {remedy}") from error
        return [
            self._in_photo(one, shape, size_wh, view.flip)
            for one, shape, size_wh in zip(results, shapes, sizes_wh, strict=True)
        ]

    def merged(self, found: Sequence[Sequence[PhotoBoxes]], sizes_wh: Sequence[tuple[int, int]]) -> list[PhotoBoxes]:
        """What all views found in each photo.

        Args:
            found: a view and a photo each.
            sizes_wh: width and height of each photo, pixels.
        """
        if len(found) == 1:
            return list(found[0])
        seen = zip(*found, strict=True)
        least, most = self.score_threshold, self.max_per_image
        return [merged(boxes, size_wh, least, most) for boxes, size_wh in zip(seen, sizes_wh, strict=True)]

    def _in_photo(self, found: Found, shape_hw: tuple[int, int], size_wh: tuple[int, int], flip: bool) -> PhotoBoxes:
        """Boxes of a network's input as boxes of the photo."""
        boxes = found.boxes_xyxy.cpu().numpy().astype(np.float64)
        if flip:
            boxes = np.stack([shape_hw[1] - boxes[:, 2], boxes[:, 1], shape_hw[1] - boxes[:, 0], boxes[:, 3]], axis=1)
        sides = np.array(size_wh * 2, np.float64)
        boxes = np.clip(boxes * (sides / np.array([shape_hw[1], shape_hw[0]] * 2)), 0, sides)
        scores = np.clip(found.scores.cpu().numpy().astype(np.float64), 0, 1)
        # mmdet applies the threshold before ATSS multiplies its scores by the centredness.
        good_enough = scores >= self.score_threshold
        whole = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) & good_enough)
        order = whole[np.argsort(-scores[whole], kind="stable")]
        return PhotoBoxes(boxes[order], scores[order], found.category_ids.cpu().numpy()[order])


def _load_weights(network: Network, path: Path, name: str) -> None:
    import pickle

    import torch

    remedy = "restore the file, or train again with --force"
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: is no file of weights, or a damaged one ({reason}); {remedy}") from error
    try:
        network.model.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: are not the weights of this network, {name} after {network.config} "
            f"({_difference(network.model.state_dict(), weights)}); {remedy}"
        ) from error


def _difference(wanted: dict[str, Any], there: Any) -> str:
    if not isinstance(there, dict):
        return f"expected tensors by name, got a {type(there).__name__}"
    missing, foreign = [key for key in wanted if key not in there], [key for key in there if key not in wanted]
    if missing or foreign:
        first = f"such as {missing[0]}" if missing else f"such as {foreign[0]}"
        return f"{len(missing)} tensors are missing and {len(foreign)} are of another network, {first}"
    other = next((key for key in wanted if getattr(there[key], "shape", None) != wanted[key].shape), None)
    return f"{other} has another shape" if other else "the tensors do not fit"


def detect(
    detector: Detector,
    split: Split,
    image_ids: Ints,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Detections:
    """One detector's boxes of photos of a split, see `detect_together`."""
    return detect_together([detector], split, image_ids, batch_size, progress)[0]


def detect_together(
    detectors: Sequence[Detector],
    split: Split,
    image_ids: Ints,
    batch_size: int | None = None,
    progress: Progress | None = None,
    num_threads: int | None = None,
    clock: PassClock | None = None,
) -> list[Detections]:
    """The garments in photos of a split; every photo is decoded once for all detectors, ahead of them.

    Photos of one shape are looked at together, wherever they stand among ``image_ids``.

    Args:
        detectors: who look.
        split: where the photos are; annotations are not needed.
        image_ids: (P,) which of them.
        batch_size: photos at once; None takes the smallest of the recipes'.
        progress: told of photos done and photos in all.
        num_threads: that decode; None for all cores that this process may use.
        clock: is told what each detector takes, and how long they wait for photos.

    Returns:
        A detector each, boxes in the order of ``image_ids``, within a photo by descending score.

    Raises:
        InputError: a photo is missing or damaged, or a network computed what is no number.
    """
    from harness.data.photos import photo_size
    from harness.detection.prefetch import fitted_photos
    from harness.workers import available_threads

    ids = np.asarray(image_ids, np.int64)
    paths = [split.photo_path(image_id) for image_id in ids.tolist()]
    size = batch_size or min(detector.card.recipe.detect_batch_size for detector in detectors)
    order = _by_shape([photo_size(path) for path in paths])
    input_sizes = tuple(dict.fromkeys(one for detector in detectors for one in detector.input_sizes))
    fitted = fitted_photos([paths[row] for row in order], input_sizes, num_threads or available_threads())
    found = _look(detectors, order, fitted, size, progress, clock)
    return [_as_detections(ids, boxes) for boxes in found]


def _by_shape(sizes_wh: Sequence[tuple[int, int]]) -> list[int]:
    """Rows by the photos' aspect, which decides their canvas at every input size."""
    sizes = np.asarray(sizes_wh, np.float64).reshape(-1, 2)
    return [int(row) for row in np.argsort(sizes[:, 0] / sizes[:, 1], kind="stable")]


class _Batch:
    """Photos of one canvas on their way through one view of a detector."""

    def __init__(self, detector: Detector, view: View, size: int, num_photos: int) -> None:
        self.found = [PhotoBoxes.none()] * num_photos
        self._detector, self._view, self._size = detector, view, size
        self._waiting: list[tuple[int, Fitted]] = []

    def add(self, row: int, photo: Fitted) -> None:
        from harness.detection.placement import snug_canvas_hw

        def canvas(one: Fitted) -> tuple[int, int]:
            return snug_canvas_hw(one.at[self._view.input_px])

        if len(self._waiting) == self._size or (self._waiting and canvas(self._waiting[0][1]) != canvas(photo)):
            self.flush()
        self._waiting.append((row, photo))

    def flush(self) -> None:
        if self._waiting:
            rows, photos = zip(*self._waiting, strict=True)
            fitted = [photo.at[self._view.input_px] for photo in photos]
            looked = self._detector.look(self._view, fitted, [photo.size_wh for photo in photos])
            for row, boxes in zip(rows, looked, strict=True):
                self.found[row] = boxes
            self._waiting = []


def _look(
    detectors: Sequence[Detector],
    order: Sequence[int],
    fitted: Iterable[Fitted],
    batch_size: int,
    progress: Progress | None = None,
    clock: PassClock | None = None,
) -> list[list[PhotoBoxes]]:
    """What each detector finds, photo by photo; ``fitted`` has the photos in the order of the rows ``order``."""
    count = len(order)
    clock = clock or PassClock()
    batches = [[_Batch(one, view, batch_size, count) for view in one.views] for one in detectors]
    sizes_wh = [(1, 1)] * count
    for done, (row, photo) in enumerate(zip(order, clock.waited_for(fitted), strict=True), start=1):
        sizes_wh[row] = photo.size_wh
        for one, seen in zip(detectors, batches, strict=True):
            with clock.network(one.card.name):
                for batch in seen:
                    batch.add(row, photo)
                    if done == count:
                        batch.flush()
        if progress is not None and (done % batch_size == 0 or done == count):
            progress(done, count)
    return [one.merged([batch.found for batch in seen], sizes_wh) for one, seen in zip(detectors, batches, strict=True)]


def _as_detections(ids: Ints, found: Sequence[PhotoBoxes]) -> Detections:
    return Detections(
        np.repeat(ids, [len(boxes.scores) for boxes in found]),
        np.concatenate([np.zeros((0, 4)), *(boxes.boxes_xyxy for boxes in found)]),
        np.concatenate([np.zeros(0), *(boxes.scores for boxes in found)]),
        np.concatenate([np.zeros(0, np.int64), *(boxes.category_ids for boxes in found)]),
    )
