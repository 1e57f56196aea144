"""The compiled operators that mmdet's detectors need from mmcv, on torchvision's.

mmcv without its compiled part (mmcv-lite) lacks the module ``mmcv._ext``, and compiling it takes
ten minutes. The functions here have the names, argument orders and in-place outputs of that
module, for the operators of the paper's detectors and of most others in mmdet: NMS and soft-NMS,
RoIAlign, sigmoid focal loss, (modulated) deformable convolution and the attention of Deformable
DETR and DINO. Every other operator raises when it is called.

Half-precision input is computed in float32: coordinates of a large photo do not fit bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
import torchvision
from torch import Tensor

from harness.detection.deformable_ops import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
    ms_deform_attn_backward,
    ms_deform_attn_forward,
    wide,
)
from harness.types import InputError


class MissingOperatorError(InputError, NotImplementedError):
    """A network called an mmcv operator that only a compiled mmcv has."""


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Rows that survive non-maximum suppression, by descending score.

    Args:
        boxes: (N, 4) pixels, x1 y1 x2 y2.
        scores: (N,).
        iou_threshold: boxes of larger IoU with a better one are dropped.
        offset: 0 or 1, added to every width and height (old mmdet measured inclusive pixels).
    """
    boxes = wide(boxes)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    kept: Tensor = torchvision.ops.nms(boxes, scores.to(boxes.dtype), iou_threshold)
    return kept


_HARD, _LINEAR = 0, 1


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    *,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Rows that survive soft non-maximum suppression (Bodla et al. 2017), in the order in which they are chosen.

    Args:
        boxes: (N, 4) pixels, x1 y1 x2 y2.
        scores: (N,).
        dets: (N, 5); the first rows are filled with the survivors' boxes and lowered scores.
        iou_threshold: from which IoU on methods 0 and 1 lower a score.
        sigma: of method 2.
        min_score: boxes whose score falls below it are dropped; the first choice stays whatever its score.
        method: 0 drops, 1 lowers by the IoU, 2 by a Gaussian of it.
        offset: 0 or 1, added to every width and height.
    """
    areas = (boxes[:, 2:] - boxes[:, :2] + offset).prod(1)
    left, lowered = torch.arange(len(boxes)), wide(scores).clone()
    chosen: list[int] = []
    while len(left):
        place = int(lowered[left].argmax())
        best = int(left[place])
        dets[len(chosen), :4], dets[len(chosen), 4] = boxes[best], lowered[best]
        chosen.append(best)
        left = torch.cat([left[:place], left[place + 1 :]])
        corners = torch.maximum(boxes[left, :2], boxes[best, :2]), torch.minimum(boxes[left, 2:], boxes[best, 2:])
        shared = (corners[1] - corners[0] + offset).clamp(min=0).prod(1)
        ious = shared / (areas[left] + areas[best] - shared)
        if method in (_HARD, _LINEAR):
            factor = torch.where(ious >= iou_threshold, 0 if method == _HARD else 1 - ious, 1)
        else:
            factor = torch.exp(-(ious**2) / sigma)
        lowered[left] *= factor
        left = left[lowered[left] >= min_score]
    return torch.tensor(chosen, dtype=torch.int64)


def roi_align_forward(
    features: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``output`` (R, C, height, width) with the features (B, C, H, W) under rois (R, 5)."""
    _refuse_max_pooling(pool_mode)
    pooled = torch.ops.torchvision.roi_align(
        wide(features),
        rois.to(wide(features).dtype),
        spatial_scale,
        aligned_height,
        aligned_width,
        sampling_ratio,
        aligned,
    )
    output.copy_(pooled)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``grad_input`` with the gradient of `roi_align_forward` for its features."""
    _refuse_max_pooling(pool_mode)
    grad = torch.ops.torchvision._roi_align_backward(
        wide(grad_output),
        rois.to(wide(grad_output).dtype),
        spatial_scale,
        aligned_height,
        aligned_width,
        *grad_input.shape,
        sampling_ratio,
        aligned,
    )
    grad_input.copy_(grad)


def _refuse_max_pooling(pool_mode: int) -> None:
    if pool_mode != 1:
        raise MissingOperatorError(
            "roi_align with max pooling needs a compiled mmcv; average pooling works without: "
            "set pool_mode='avg', or install mmcv>=2.1,<2.2 with its compiled operators"
        )


def _focal_parts(logits: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """(sign, logit of the truth, factor), each (N, C); a target of C is background."""
    num_classes = logits.shape[1]
    is_class = target[:, None] == torch.arange(num_classes, device=target.device)[None]
    sign = torch.where(is_class, 1.0, -1.0)
    factor = torch.where(is_class, alpha, 1 - alpha)
    if weight.numel():
        padded = torch.cat([wide(weight), wide(weight.new_ones(1))])
        factor = factor * padded[target.clamp(max=num_classes)][:, None]
    return sign, wide(logits) * sign, factor


def sigmoid_focal_loss_forward(
    logits: Tensor, target: Tensor, weight: Tensor, output: Tensor, *, gamma: float, alpha: float
) -> None:
    """Fill ``output`` (N, C) with the focal loss of every logit (Lin et al. 2017, eq. 5).

    Args:
        logits: (N, C).
        target: (N,) int64 class, or C for background.
        weight: (C,) weights of the classes of ``target``, or empty for none.
        output: (N, C), overwritten.
        gamma: focusing power.
        alpha: weight of the class against its absence.
    """
    _, truth, factor = _focal_parts(logits, target, weight, alpha)
    output.copy_(-factor * torch.sigmoid(-truth) ** gamma * torch.nn.functional.logsigmoid(truth))


def sigmoid_focal_loss_backward(
    logits: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, *, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input`` (N, C) with the derivative of `sigmoid_focal_loss_forward` by its logits."""
    sign, truth, factor = _focal_parts(logits, target, weight, alpha)
    p_truth, p_wrong = torch.sigmoid(truth), torch.sigmoid(-truth)
    slope = gamma * p_truth * torch.nn.functional.logsigmoid(truth) - p_wrong
    grad_input.copy_(sign * factor * p_wrong**gamma * slope)


OPERATORS: tuple[Callable[..., Any], ...] = (
    nms,
    softnms,
    ms_deform_attn_forward,
    ms_deform_attn_backward,
    roi_align_forward,
    roi_align_backward,
    sigmoid_focal_loss_forward,
    sigmoid_focal_loss_backward,
    deform_conv_forward,
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    modulated_deform_conv_forward,
    modulated_deform_conv_backward,
)


class _Extension(ModuleType):
    """Stands for ``mmcv._ext``: mmcv asks at import for every operator it might ever call."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_: Any, **__: Any) -> Any:
            raise MissingOperatorError(
                f"mmcv operator {name!r} has no torchvision counterpart here; the network that calls it needs "
                "a compiled mmcv (pip uninstall mmcv-lite, then pip install 'mmcv>=2.1,<2.2' where a compiler "
                "or a wheel for your torch is at hand)"
            )

        return missing


def extension_module() -> ModuleType:
    """A module to stand in for ``mmcv._ext``."""
    module = _Extension("mmcv._ext", "mmcv's operators on torchvision")
    for operator in OPERATORS:
        setattr(module, operator.__name__, operator)
    return module
