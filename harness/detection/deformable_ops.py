"""mmcv's operators that look beside the grid: deformable convolution and deformable attention, on torchvision's.

Names, argument orders and in-place outputs are those of mmcv's compiled module, see `harness.detection.mmcv_ops`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def wide(values: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return values if values.dtype == torch.float64 else values.float()


def _convolution(
    step: Callable[..., Any], tensors: tuple[Tensor, ...], geometry: tuple[int, ...], use_mask: bool
) -> Any:
    """Call a torchvision deformable convolution; ``geometry`` is stride, padding, dilation (h, w each), groups."""
    return step(*map(wide, tensors), *geometry, use_mask)


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
