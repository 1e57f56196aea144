"""The door to mmdet's networks, their data samples, and mmcv's operators.

Outside this module photos are uint8 RGB, boxes are pixels x1 y1 x2 y2 and categories are 1–13;
mmdet's labels 0–12 do not leave it. Legend for suffixes: B photos of a batch, H W pixels.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from harness.detection.averaging import average_over_processes
from harness.detection.configs import from_plain, load_model_config, merged
from harness.types import CATEGORIES, InputError

_REFUSALS = (KeyError, TypeError, AssertionError, AttributeError, ValueError, ImportError, RuntimeError)
"""What mmdet raises where it cannot build a network from a config."""


@dataclass(frozen=True)
class Targets:
    """What is to be found in one training photo.

    Attributes:
        boxes_xyxy: (N, 4) float32, pixels of the network's input.
        category_ids: (N,) int64 in 1–13.
        masks: (N, H, W) uint8 of 0 and 1, for networks that learn masks; None for the others.
        photo_hw: height and width of the photo inside the batch's padding; None where it fills the input.
    """

    boxes_xyxy: Tensor
    category_ids: Tensor
    masks: Any | None = None
    photo_hw: tuple[int, int] | None = None


@dataclass(frozen=True)
class Found:
    """What a network found in one photo, best first: boxes (N, 4) in input pixels, scores (N,), categories (N,)."""

    boxes_xyxy: Tensor
    scores: Tensor
    category_ids: Tensor


def provide_operators() -> str:
    """Make ``import mmdet.models`` possible, and say whose operators it will run on.

    Returns:
        ``mmcv`` where a compiled mmcv is installed, else ``torchvision``.
    """
    name = "mmcv._ext"
    if name in sys.modules:
        return "torchvision" if not hasattr(sys.modules[name], "__file__") else "mmcv"
    if importlib.util.find_spec(name) is not None:
        return "mmcv"
    import mmcv

    from harness.detection import mmcv_ops

    extension = mmcv_ops.extension_module()
    sys.modules[name] = extension
    mmcv._ext = extension
    return "torchvision"


def _adapt(node: Any) -> Any:
    """Our number of classes everywhere, and no weights fetched from the network behind the user's back."""
    if isinstance(node, Mapping):
        adapted = {key: _adapt(value) for key, value in node.items()}
        if "num_classes" in adapted:
            adapted["num_classes"] = len(CATEGORIES)
        init = adapted.get("init_cfg")
        several = init if isinstance(init, list | tuple) else [init]
        if any(isinstance(one, Mapping) and one.get("type") == "Pretrained" for one in several):
            del adapted["init_cfg"]
        if isinstance(adapted.get("pretrained"), str):
            adapted["pretrained"] = None
        return adapted
    if isinstance(node, list | tuple):
        return type(node)(_adapt(part) for part in node)
    return node


class Network(nn.Module):
    """An mmdet detector that takes uint8 RGB photos and speaks this harness's categories.

    Args:
        config: path of a config inside the mmdet wheel; empty where ``changes`` are the whole model.
        changes: laid over the config's ``model``, see `merged`.

    Attributes:
        learns_masks: whether targets must have masks.
        left_as_drawn: tensors that the initial weights did not give.
        epoch: of the training, from 0; some heads (TOOD's) change with it.

    Raises:
        InputError: there is no such config, or mmdet refuses the changed one.
    """

    def __init__(self, config: str, changes: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = config
        self._dtype = torch.float32
        self._all_finite: list[Tensor] = []
        self._hooks: list[Any] = []
        provide_operators()
        import mmdet.models  # noqa: F401  (registers the networks)
        from mmdet.registry import MODELS
        from mmengine.config import ConfigDict
        from mmengine.registry import DefaultScope, init_default_scope

        # Said once a process by parts of mmdet that its own configs use.
        warnings.filterwarnings("ignore", message=".*`num_anchors` is deprecated.*")
        warnings.filterwarnings("ignore", message=".*torch.meshgrid: in an upcoming release.*")
        if DefaultScope.get_current_instance() is None:
            init_default_scope("mmdet")
        model = _adapt(from_plain(merged(load_model_config(config), changes)))
        pixels = model.pop("data_preprocessor", None) or {}
        # Normalisation is done here; mmdet still wants some preprocessor to exist.
        model["data_preprocessor"] = {"type": "DetDataPreprocessor"}
        # mmdet configs speak of BGR files: a network whose preprocessor swaps the channels sees RGB.
        self.wants_bgr = not pixels.get("bgr_to_rgb", False)
        self.register_buffer("mean", torch.tensor(pixels.get("mean") or [0.0] * 3).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(pixels.get("std") or [1.0] * 3).view(1, 3, 1, 1), persistent=False)
        try:
            self.model = MODELS.build(ConfigDict(model))
        except _REFUSALS as error:
            what = f"config {config!r}: mmdet cannot build it with these changes" if config else "mmdet cannot build it"
            raise InputError(f"{what}: {str(error).strip() or 'an assertion fails'}") from error
        self._most: int | None = None
        self.left_as_drawn: tuple[str, ...] = ()
        self.epoch = 0
        average_over_processes(self.model)
        _cut_regions_in_32_bits(self.model)
        self.learns_masks = bool(getattr(self.model, "with_mask", False))

    @property
    def padding_rgb(self) -> tuple[int, int, int]:
        """The colour that is nearest to zero after normalisation, for the area outside a photo."""
        mean = [round(float(value)) for value in self.mean.flatten()]  # type: ignore[operator]
        red, green, blue = reversed(mean) if self.wants_bgr else mean
        return red, green, blue

    def initialise(self) -> None:
        """Draw fresh weights from torch's global generator (without this the first loss is some 30 times too large)."""
        logger = logging.getLogger("mmengine")
        disabled = logging.root.manager.disable
        logging.disable(logging.INFO)  # mmengine tells of every single layer
        try:
            self.model.init_weights()
        finally:
            logging.disable(disabled)
            logger.handlers.clear()

    def normalised(self, photos_BHW3: Tensor) -> Tensor:
        """Network input (B, 3, H, W) float32 from uint8 RGB photos (B, H, W, 3)."""
        pixels = photos_BHW3.permute(0, 3, 1, 2).float()
        if self.wants_bgr:
            pixels = pixels.flip(1)
        result: Tensor = (pixels - self.mean) / self.std  # type: ignore[operator]
        return result.contiguous()

    def losses(self, photos_BHW3: Tensor, targets: Sequence[Targets]) -> dict[str, Tensor]:
        """The named losses of a batch; their sum is what training lowers.

        Args:
            photos_BHW3: uint8 RGB.
            targets: one a photo, on the photos' device.
        """
        from mmdet.structures.mask import BitmapMasks
        from mmengine.logging import MessageHub
        from mmengine.structures import InstanceData

        shape = (int(photos_BHW3.shape[1]), int(photos_BHW3.shape[2]))
        samples = []
        for target in targets:
            truth = InstanceData(bboxes=target.boxes_xyxy, labels=target.category_ids - 1)
            if self.learns_masks:
                if target.masks is None:
                    raise ValueError("this network learns masks, and the targets have none")
                truth.masks = BitmapMasks(target.masks, *shape)
            sample = _sample(target.photo_hw or shape, shape)
            sample.gt_instances = truth
            samples.append(sample)
        MessageHub.get_current_instance().update_info("epoch", self.epoch)
        told = self.model.loss(self.normalised(photos_BHW3), samples)
        sums = {}
        for name, value in told.items():
            if "loss" in name:
                parts = value if isinstance(value, list | tuple) else [value]
                sums[name] = torch.stack([part.mean() for part in parts]).sum()
        return sums

    @torch.no_grad()
    def predict(self, photos_BHW3: Tensor, photo_shapes_hw: Sequence[tuple[int, int]]) -> list[Found]:
        """What is in the photos, in pixels of the network's input.

        Args:
            photos_BHW3: uint8 RGB, padded to the right and at the bottom.
            photo_shapes_hw: height and width of each photo inside its padding.

        Raises:
            FloatingPointError: a head gave what is no number; only after `compute_in`.
        """
        shape = (int(photos_BHW3.shape[1]), int(photos_BHW3.shape[2]))
        samples = [_sample(photo_shape, shape) for photo_shape in photo_shapes_hw]
        self._all_finite.clear()
        half = self._dtype != torch.float32
        with torch.autocast(photos_BHW3.device.type, self._dtype if half else None, enabled=half):
            results = self.model.predict(self.normalised(photos_BHW3), samples, rescale=False)
        if self._all_finite and not torch.stack(self._all_finite).all():
            raise FloatingPointError(f"the network's output is not finite in {str(self._dtype).removeprefix('torch.')}")
        found = [_best(result.pred_instances, self._most) for result in results]
        return [Found(one.bboxes.float(), one.scores.float(), one.labels.long() + 1) for one in found]

    def compute_in(self, precision: Literal["32", "16", "bf16"]) -> None:
        """From now on predict in this precision, and refuse output that is not finite; for detection, not training.

        Convolutions and products are computed so. What the heads say becomes float32 before boxes are made of it.
        """
        from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
        from mmdet.models.roi_heads.bbox_heads import BBoxHead

        self._dtype = {"32": torch.float32, "16": torch.float16, "bf16": torch.bfloat16}[precision]

        def told(_: nn.Module, __: Any, output: Any) -> Any:
            wide = _widened(output)
            self._all_finite.extend(part.isfinite().all() for part in _tensors(wide))
            return wide

        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for part in self.model.modules():
            if isinstance(part, BaseDenseHead | BBoxHead):
                self._hooks.append(part.register_forward_hook(told))

    def limit(self, score_threshold: float, max_per_image: int) -> None:
        """Report boxes of at least this score only, and at most so many a photo."""
        head = getattr(self.model, "roi_head", None) or getattr(self.model, "bbox_head", None)
        settings = getattr(head, "test_cfg", None)
        self._most = max_per_image
        if settings is not None:  # heads that know no such limits leave it to `predict`
            settings.score_thr = score_threshold
            settings.max_per_img = max_per_image

    def only_boxes(self) -> None:
        """Drop the mask branch: detection here asks for boxes, and masks would take most of its time."""
        if self.learns_masks and hasattr(self.model, "roi_head"):
            self.model.roi_head.mask_head = None
            self.learns_masks = False


def _best(found: Any, most: int | None) -> Any:
    """At most so many of what was found in a photo, the best of it; not every head limits it itself."""
    if most is None or len(found.scores) <= most:
        return found
    return found[found.scores.sort(descending=True, stable=True)[1][:most]]


def _cut_regions_in_32_bits(model: nn.Module) -> None:
    """Give RoIAlign features of 32 bits, in training and in detection.

    mmdet rounds the regions to the type of the features, and bfloat16 tells a coordinate of 1,000 px to 4 px.
    """
    from mmdet.models.roi_heads.roi_extractors.base_roi_extractor import BaseRoIExtractor

    for part in model.modules():
        if isinstance(part, BaseRoIExtractor):
            part.register_forward_pre_hook(lambda _, given: _widened(given))


def _widened(value: Any) -> Any:
    """Tensors of half precision as float32, wherever in tuples and lists they are."""
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    return type(value)(map(_widened, value)) if isinstance(value, list | tuple) else value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _sample(photo_shape_hw: tuple[int, int], input_shape_hw: tuple[int, int]) -> Any:
    from mmdet.structures import DetDataSample

    height, width = input_shape_hw
    return DetDataSample(
        metainfo={
            "img_shape": photo_shape_hw,
            "ori_shape": photo_shape_hw,
            "pad_shape": input_shape_hw,
            "batch_input_shape": input_shape_hw,
            "scale_factor": (1.0, 1.0),
            "border": (0, height, 0, width),  # read by the heads of "Objects as Points" only
        }
    )
