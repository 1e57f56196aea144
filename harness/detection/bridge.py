"""The only door to mmdet and mmcv: their configs, their networks, their data samples.

Outside this module photos are uint8 RGB, boxes are pixels x1 y1 x2 y2 and categories are 1–13;
mmdet's labels 0–12 do not leave it. Legend for suffixes: B photos of a batch, H W pixels.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.detection.averaging import average_over_processes
from harness.types import CATEGORIES, InputError


@dataclass(frozen=True)
class Targets:
    """What is to be found in one training photo.

    Attributes:
        boxes_xyxy: (N, 4) float32, pixels of the network's input.
        category_ids: (N,) int64 in 1–13.
        masks: (N, H, W) uint8 of 0 and 1, for networks that learn masks; None for the others.
    """

    boxes_xyxy: Tensor
    category_ids: Tensor
    masks: Any | None = None


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


def load_model_config(config: str) -> dict[str, Any]:
    """The ``model`` part of a config inside the mmdet wheel, with its bases resolved.

    Args:
        config: path below ``mmdet/.mim/configs``, such as ``atss/atss_r101_fpn_1x_coco.py``.

    Raises:
        InputError: the wheel has no such config; the message lists its neighbours.
    """
    from mmengine.config import Config

    spec = importlib.util.find_spec("mmdet")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / ".mim" / "configs"
    path = folder / config
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*.py")) or sorted(p.name for p in folder.iterdir())
        raise InputError(f"config {config!r}: mmdet has no such file; {path.parent.name} holds {', '.join(there)}")
    return dict(Config.fromfile(str(path)).model.to_dict())


def merged(base: Any, changes: Any) -> Any:
    """A config with changes laid over it.

    Dicts merge key by key; a dict over a list of dicts changes every one of them (the three
    stages of a cascade); a dict with ``_delete_`` replaces; everything else replaces.
    """
    if isinstance(changes, Mapping):
        if isinstance(base, list | tuple) and base and all(isinstance(part, Mapping) for part in base):
            return [merged(part, changes) for part in base]
        fresh = bool(changes.get("_delete_", False)) or not isinstance(base, Mapping)
        result = {} if fresh else dict(base)
        for key, change in changes.items():
            if key != "_delete_":
                result[key] = merged(result.get(key), change)
        return result
    return copy.deepcopy(changes)


def _adapt(node: Any) -> Any:
    """Our number of classes everywhere, and no weights fetched from the network behind the user's back."""
    if isinstance(node, Mapping):
        adapted = {key: _adapt(value) for key, value in node.items()}
        if "num_classes" in adapted:
            adapted["num_classes"] = len(CATEGORIES)
        init = adapted.get("init_cfg")
        if isinstance(init, Mapping) and init.get("type") == "Pretrained":
            del adapted["init_cfg"]
        return adapted
    if isinstance(node, list | tuple):
        return [_adapt(part) for part in node]
    return node


class Network(nn.Module):
    """An mmdet detector that takes uint8 RGB photos and speaks this harness's categories.

    Args:
        config: path of a config inside the mmdet wheel.
        changes: laid over the config's ``model``, see `merged`.

    Raises:
        InputError: there is no such config, or mmdet refuses the changed one.
    """

    def __init__(self, config: str, changes: Mapping[str, Any]) -> None:
        super().__init__()
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
        model = _adapt(merged(load_model_config(config), changes))
        pixels = model.pop("data_preprocessor")
        # Normalisation is done here; mmdet still wants some preprocessor to exist.
        model["data_preprocessor"] = {"type": "DetDataPreprocessor"}
        # mmdet configs speak of BGR files: a network whose preprocessor swaps the channels sees RGB.
        self.wants_bgr = not pixels.get("bgr_to_rgb", False)
        self.register_buffer("mean", torch.tensor(pixels["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(pixels["std"]).view(1, 3, 1, 1), persistent=False)
        try:
            self.model = MODELS.build(ConfigDict(model))
        except (KeyError, TypeError, AssertionError, AttributeError) as error:
            raise InputError(f"config {config!r}: mmdet cannot build it with these changes: {error}") from error
        average_over_processes(self.model)
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
        from mmengine.structures import InstanceData

        shape = (int(photos_BHW3.shape[1]), int(photos_BHW3.shape[2]))
        samples = []
        for target in targets:
            truth = InstanceData(bboxes=target.boxes_xyxy, labels=target.category_ids - 1)
            if self.learns_masks:
                if target.masks is None:
                    raise ValueError("this network learns masks, and the targets have none")
                truth.masks = BitmapMasks(target.masks, *shape)
            sample = _sample(shape, shape)
            sample.gt_instances = truth
            samples.append(sample)
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
        """
        shape = (int(photos_BHW3.shape[1]), int(photos_BHW3.shape[2]))
        samples = [_sample(photo_shape, shape) for photo_shape in photo_shapes_hw]
        results = self.model.predict(self.normalised(photos_BHW3), samples, rescale=False)
        found = [result.pred_instances for result in results]
        return [Found(one.bboxes.float(), one.scores.float(), one.labels.long() + 1) for one in found]

    def limit(self, score_threshold: float, max_per_image: int) -> None:
        """Report boxes of at least this score only, and at most so many a photo."""
        if hasattr(self.model, "roi_head"):
            settings = self.model.roi_head.test_cfg
        else:
            settings = self.model.bbox_head.test_cfg
        settings.score_thr = score_threshold
        settings.max_per_img = max_per_image

    def only_boxes(self) -> None:
        """Drop the mask branch: detection here asks for boxes, and masks would take most of its time."""
        if self.learns_masks:
            self.model.roi_head.mask_head = None
            self.learns_masks = False


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
