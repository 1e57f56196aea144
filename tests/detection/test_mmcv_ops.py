from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from harness.detection import mmcv_ops


def focal_loss_by_definition(logits, target, weight, gamma, alpha):
    rows = []
    for row, label in enumerate(target.tolist()):
        values = []
        for column in range(logits.shape[1]):
            p = torch.sigmoid(logits[row, column])
            is_class = column == label
            p_truth, factor = (p, alpha) if is_class else (1 - p, 1 - alpha)
            if weight is not None and label < logits.shape[1]:
                factor = factor * weight[label]
            values.append(-factor * (1 - p_truth) ** gamma * torch.log(p_truth))
        rows.append(torch.stack(values))
    return torch.stack(rows)


@pytest.mark.parametrize("with_weight", [False, True])
def test_focal_loss_and_its_gradient(with_weight):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(6, 3, generator=generator, dtype=torch.float64).requires_grad_()
    target = torch.tensor([0, 1, 2, 3, 3, 1])  # 3 is background
    weight = torch.tensor([0.5, 2.0, 3.0]) if with_weight else None
    expected = focal_loss_by_definition(logits, target, weight, 2.0, 0.25)
    expected.sum().backward()

    given = logits.detach().float()
    empty = torch.empty(0) if weight is None else weight
    output, gradient = torch.zeros(6, 3), torch.zeros(6, 3)
    mmcv_ops.sigmoid_focal_loss_forward(given, target, empty, output, gamma=2.0, alpha=0.25)
    mmcv_ops.sigmoid_focal_loss_backward(given, target, empty, gradient, gamma=2.0, alpha=0.25)

    torch.testing.assert_close(output.double(), expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient.double(), logits.grad, rtol=1e-5, atol=1e-6)


def test_nms_drops_the_worse_of_two_alike():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    kept = mmcv_ops.nms(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.5, 0)
    assert kept.tolist() == [1, 2]


def test_nms_offset_counts_inclusive_pixels():
    # Widths 1 and 2 without the offset: IoU 1/2. With it 2 and 3: IoU 2/3.
    boxes = torch.tensor([[0.0, 0, 1, 10], [0, 0, 2, 10]])
    scores = torch.tensor([0.9, 0.8])
    assert len(mmcv_ops.nms(boxes, scores, 0.6, 0)) == 2
    assert len(mmcv_ops.nms(boxes, scores, 0.6, 1)) == 1


def test_nms_of_nothing():
    assert mmcv_ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5, 0).tolist() == []


def roi_settings(**more):
    return {"spatial_scale": 1.0, "sampling_ratio": 2, "pool_mode": 1, "aligned": True, **more}


def test_roi_align_of_a_ramp_gives_bin_centres():
    ramp = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 8, 8).contiguous()
    rois, output, nothing = torch.tensor([[0.0, 2, 2, 6, 6]]), torch.zeros(1, 1, 2, 2), torch.zeros(0)
    settings = roi_settings(aligned_height=2, aligned_width=2)
    mmcv_ops.roi_align_forward(ramp, rois, output, nothing, nothing, **settings)
    # Pixel centres lie at +0.5, so the ramp's value at x is x - 0.5; bins are centred at 3 and 5.
    assert output[0, 0].tolist() == [[2.5, 4.5], [2.5, 4.5]]


def test_roi_align_backward_is_the_forward_transposed():
    generator = torch.Generator().manual_seed(2)
    features, upstream = torch.randn(1, 2, 6, 6, generator=generator), torch.randn(2, 2, 3, 3, generator=generator)
    rois = torch.tensor([[0.0, 0.5, 1, 5, 4], [0, 2, 2, 5, 5]])
    settings, nothing = roi_settings(aligned_height=3, aligned_width=3), torch.zeros(0)
    output, gradient = torch.zeros(2, 2, 3, 3), torch.zeros(1, 2, 6, 6)
    mmcv_ops.roi_align_forward(features, rois, output, nothing, nothing, **settings)
    mmcv_ops.roi_align_backward(upstream, rois, nothing, nothing, gradient, **settings)
    # The operator is linear: <A f, u> = <f, A' u>.
    torch.testing.assert_close((output * upstream).sum(), (features * gradient).sum())


def test_max_pooling_is_refused():
    settings = roi_settings(aligned_height=2, aligned_width=2, pool_mode=0)
    tensors = torch.zeros(1, 1, 4, 4), torch.zeros(0, 5), torch.zeros(0, 1, 2, 2), torch.zeros(0), torch.zeros(0)
    with pytest.raises(mmcv_ops.MissingOperatorError, match="max pooling"):
        mmcv_ops.roi_align_forward(*tensors, **settings)


PLAIN = {"dW": 1, "dH": 1, "padW": 1, "padH": 1, "dilationW": 1, "dilationH": 1, "group": 1, "deformable_group": 1}


def test_deformable_convolution_without_offsets_is_a_convolution():
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(2, 3, 5, 5, generator=generator).requires_grad_()
    weight = torch.randn(4, 3, 3, 3, generator=generator).requires_grad_()
    upstream = torch.randn(2, 4, 5, 5, generator=generator)
    expected = functional.conv2d(features, weight, padding=1)
    expected.backward(upstream)

    offset, empty = torch.zeros(2, 18, 5, 5), torch.zeros(0)
    output, grad_input, grad_offset, grad_weight = (
        torch.zeros(2, 4, 5, 5),
        torch.zeros(2, 3, 5, 5),
        torch.zeros(2, 18, 5, 5),
        torch.zeros(4, 3, 3, 3),
    )
    plain = features.detach(), weight.detach()
    mmcv_ops.deform_conv_forward(plain[0], plain[1], offset, output, empty, empty, kW=3, kH=3, im2col_step=2, **PLAIN)
    mmcv_ops.deform_conv_backward_input(
        plain[0], offset, upstream, grad_input, grad_offset, plain[1], empty, kW=3, kH=3, im2col_step=2, **PLAIN
    )
    mmcv_ops.deform_conv_backward_parameters(
        plain[0], offset, upstream, grad_weight, empty, empty, kW=3, kH=3, scale=1, im2col_step=2, **PLAIN
    )
    torch.testing.assert_close(output, expected.detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(grad_input, features.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(grad_weight, weight.grad, rtol=1e-4, atol=1e-4)
    assert grad_offset.abs().sum() > 0


def test_modulated_convolution_through_mmcv_itself():
    from harness.detection.bridge import provide_operators

    provide_operators()
    from mmcv.ops import modulated_deform_conv2d

    generator = torch.Generator().manual_seed(4)
    features = torch.randn(1, 2, 5, 5, generator=generator).requires_grad_()
    weight = torch.randn(3, 2, 3, 3, generator=generator).requires_grad_()
    bias = torch.randn(3, generator=generator).requires_grad_()
    offset, mask = torch.zeros(1, 18, 5, 5).requires_grad_(), torch.full((1, 9, 5, 5), 0.5).requires_grad_()
    output = modulated_deform_conv2d(features, offset, mask, weight, bias, 1, 1, 1, 1, 1)
    expected = functional.conv2d(features, weight, padding=1) * 0.5 + bias[:, None, None]
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)
    output.sum().backward()
    # d/d mask sums over the output what the half-open gates halve: twice the output without bias.
    torch.testing.assert_close((mask.grad * mask.detach()).sum(), (output - bias[:, None, None]).sum().detach())


def test_an_operator_without_counterpart_says_its_name_and_the_remedy():
    module = mmcv_ops.extension_module()
    with pytest.raises(mmcv_ops.MissingOperatorError, match=r"'carafe_forward'.*compiled mmcv"):
        module.carafe_forward()
    assert not hasattr(module, "__path__")
