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
    boxes = _wide(boxes)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    kept: Tensor = torchvision.ops.nms(boxes, scores.to(boxes.dtype), iou_threshold)
    return kept


def _wide(values: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return values if values.dtype == torch.float64 else values.float()


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
    left, lowered = torch.arange(len(boxes)), _wide(scores).clone()
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


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    *,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention (Zhu et al. 2021, eq. 2) in plain torch, as mmcv has it for a CPU.

    Args:
        value: (B, keys, heads, channels).
        value_spatial_shapes: (levels, 2) height and width.
        value_level_start_index: (levels,), follows from the shapes.
        sampling_locations: (B, queries, heads, levels, points, 2) in [0, 1].
        attention_weights: (B, queries, heads, levels, points).
        im2col_step: how a compiled mmcv parts the batch.

    Returns:
        (B, queries, heads * channels).
    """
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    attended: Tensor = multi_scale_deformable_attn_pytorch(
        value, value_spatial_shapes, sampling_locations, attention_weights
    )
    return attended


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    *,
    im2col_step: int,
) -> None:
    """Fill the gradients of `ms_deform_attn_forward`."""
    with torch.enable_grad():
        inputs = [one.detach().requires_grad_() for one in (value, sampling_locations, attention_weights)]
        attended = ms_deform_attn_forward(
            inputs[0], value_spatial_shapes, value_level_start_index, *inputs[1:], im2col_step=im2col_step
        )
        grads = torch.autograd.grad(attended, inputs, grad_output)
    for target, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True):
        target.copy_(grad)


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
        _wide(features),
        rois.to(_wide(features).dtype),
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
        _wide(grad_output),
        rois.to(_wide(grad_output).dtype),
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
        padded = torch.cat([_wide(weight), _wide(weight.new_ones(1))])
        factor = factor * padded[target.clamp(max=num_classes)][:, None]
    return sign, _wide(logits) * sign, factor


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


def _convolution(
    step: Callable[..., Any], tensors: tuple[Tensor, ...], geometry: tuple[int, ...], use_mask: bool
) -> Any:
    """Call a torchvision deformable convolution; ``geometry`` is stride, padding, dilation (h, w each), groups."""
    return step(*map(_wide, tensors), *geometry, use_mask)


def deform_conv_forward(
    features: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **geometry: int
) -> None:
    """Fill ``output`` with a deformable convolution (Dai et al. 2017) of the features."""
    nothing = features.new_zeros((features.shape[0], 0, 1, 1)), features.new_zeros(weight.shape[0])
    output.copy_(
        _convolution(torch.ops.torchvision.deform_conv2d, (features, weight, offset, *nothing), _plain(geometry), False)
    )


def _plain_backward(
    features: Tensor, offset: Tensor, grad_output: Tensor, weight: Tensor, geometry: dict[str, int]
) -> Any:
    nothing = features.new_zeros((features.shape[0], 0, 1, 1)), features.new_zeros(weight.shape[0])
    tensors = (grad_output, features, weight, offset, *nothing)
    return _convolution(torch.ops.torchvision._deform_conv2d_backward, tensors, _plain(geometry), False)


def deform_conv_backward_input(
    features: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **geometry: int,
) -> None:
    """Fill the gradients of `deform_conv_forward` for its features and offsets."""
    grads = _plain_backward(features, offset, grad_output, weight, geometry)
    grad_input.copy_(grads[0])
    grad_offset.copy_(grads[2])


def deform_conv_backward_parameters(
    features: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    *,
    scale: float,
    **geometry: int,
) -> None:
    """Add ``scale`` times the gradient of `deform_conv_forward` for its weights to ``grad_weight``."""
    # The values of the weights do not enter their own gradient, only the shape does.
    grads = _plain_backward(features, offset, grad_output, grad_weight, geometry)
    grad_weight.add_(grads[1], alpha=scale)


def _plain(geometry: dict[str, int]) -> tuple[int, ...]:
    names = ("dH", "dW", "padH", "padW", "dilationH", "dilationW", "group", "deformable_group")
    return tuple(geometry[name] for name in names)


def _modulated(geometry: dict[str, int]) -> tuple[int, ...]:
    names = ("stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w", "group", "deformable_group")
    return tuple(geometry[name] for name in names)


def modulated_deform_conv_forward(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    *,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Fill ``output`` with a modulated deformable convolution (Zhu et al. 2019) of the features."""
    used_bias = bias if with_bias else features.new_zeros(weight.shape[0])
    tensors = (features, weight, offset, mask, used_bias)
    output.copy_(_convolution(torch.ops.torchvision.deform_conv2d, tensors, _modulated(geometry), True))


def modulated_deform_conv_backward(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    *,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Fill the gradients of `modulated_deform_conv_forward` for all its tensors."""
    used_bias = bias if with_bias else features.new_zeros(weight.shape[0])
    tensors = (grad_output, features, weight, offset, mask, used_bias)
    grads = _convolution(torch.ops.torchvision._deform_conv2d_backward, tensors, _modulated(geometry), True)
    for target, grad in zip((grad_input, grad_weight, grad_offset, grad_mask), grads[:4], strict=True):
        target.copy_(grad)
    if with_bias:
        grad_bias.copy_(grads[4])


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
