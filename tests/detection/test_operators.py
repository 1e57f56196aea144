"""mmcv's own modules on the operators of `harness.detection.mmcv_ops`, against loops over pixels in float64.

A loop is written from the paper of the operator; gradients are checked against differences of the forward pass.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from harness.detection import mmcv_ops
from harness.detection.bridge import provide_operators
from harness.types import InputError

provide_operators()

from mmcv import ops  # noqa: E402  (needs the operators)

HALVES = (torch.float16, torch.bfloat16)
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
        ),
    ]
)
def device(request):
    return request.param


def drawn(*shape, seed=0, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device)


def same(found, expected, dtype):
    assert found.dtype == dtype
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(
        found.double().cpu(), expected.double().cpu(), rtol=ROUNDING[dtype], atol=ROUNDING[dtype] * scale
    )


def between_pixels(plane, y, x, edge):
    """Bilinear; outside by up to ``edge`` px is the border's value where ``edge`` is 1 (RoIAlign), else fades to 0."""
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    if edge:
        y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
    low_y, low_x, total = math.floor(y), math.floor(x), 0.0
    for row, part_y in ((low_y, 1 - (y - low_y)), (low_y + 1, y - low_y)):
        for column, part_x in ((low_x, 1 - (x - low_x)), (low_x + 1, x - low_x)):
            if 0 <= row < height and 0 <= column < width:
                total += part_y * part_x * float(plane[row, column])
    return total


def roi_align_by_loops(features, rois, out_hw, scale, sampling_ratio, aligned):
    pooled = torch.zeros(len(rois), features.shape[1], *out_hw, dtype=torch.float64)
    for number, (owner, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (corner * scale - 0.5 * aligned for corner in corners)
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1.0), max(height, 1.0)
        bin_h, bin_w = height / out_hw[0], width / out_hw[1]
        num_y, num_x = (sampling_ratio or math.ceil(side) for side in (bin_h, bin_w))
        for row in range(out_hw[0]):
            for column in range(out_hw[1]):
                for channel in range(features.shape[1]):
                    total = sum(
                        between_pixels(
                            features[int(owner), channel],
                            y1 + bin_h * (row + (i + 0.5) / num_y),
                            x1 + bin_w * (column + (j + 0.5) / num_x),
                            edge=True,
                        )
                        for i in range(num_y)
                        for j in range(num_x)
                    )
                    pooled[number, channel, row, column] = total / max(num_y * num_x, 1)
    return pooled


ROIS = torch.tensor(
    [[0, 1.3, 2.1, 9.7, 8.2], [1, 0, 0, 3.9, 15.2], [1, -3, 4, 20, 11], [0, 5, 5, 5.2, 5.1]], dtype=torch.float64
)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES])
def test_roi_align(aligned, sampling_ratio, dtype, device):
    # Half precision holds these features, so that only the output is rounded.
    features, rois = drawn(2, 2, 8, 7).bfloat16().double(), ROIS.float().double()
    module = ops.RoIAlign((3, 2), 0.5, sampling_ratio, "avg", aligned)
    expected = roi_align_by_loops(features, rois, (3, 2), 0.5, sampling_ratio, aligned)
    found = module(features.to(device, dtype), rois.to(device, torch.float32 if dtype in HALVES else dtype))
    same(found, expected, dtype)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_the_gradient_of_roi_align(aligned, sampling_ratio, device):
    module = ops.RoIAlign((3, 2), 0.5, sampling_ratio, "avg", aligned)
    features = drawn(2, 1, 6, 5, device=device).requires_grad_()
    # torchvision adds gradients up in no fixed order on a GPU.
    assert gradcheck(lambda some: module(some, ROIS.to(device)), features, nondet_tol=1e-9)
    module(features, ROIS.to(device)).sum().backward()  # an expanded gradient, which lies nowhere in full
    assert torch.isfinite(features.grad).all()
    assert module(features, ROIS[:0].to(device)).shape == (0, 1, 3, 2)


def deform_by_loops(features, weight, offset, mask, bias, stride, padding, dilation, deform_groups):
    """Zhu et al. 2019, eq. 1; offsets are y, x for every tap of every deformation group."""
    batch, channels, height, width = features.shape
    num_out, per_group, kernel_h, kernel_w = weight.shape
    out_h = (height + 2 * padding - dilation * (kernel_h - 1) - 1) // stride + 1
    out_w = (width + 2 * padding - dilation * (kernel_w - 1) - 1) // stride + 1
    groups, result = channels // per_group, torch.zeros(batch, num_out, out_h, out_w, dtype=torch.float64)
    for b in range(batch):
        for row in range(out_h):
            for column in range(out_w):
                taps = torch.zeros(channels, kernel_h, kernel_w, dtype=torch.float64)
                for channel in range(channels):
                    part = channel // (channels // deform_groups)
                    for i in range(kernel_h):
                        for j in range(kernel_w):
                            tap = part * kernel_h * kernel_w + i * kernel_w + j
                            y = row * stride - padding + i * dilation + float(offset[b, 2 * tap, row, column])
                            x = column * stride - padding + j * dilation + float(offset[b, 2 * tap + 1, row, column])
                            gate = 1.0 if mask is None else float(mask[b, tap, row, column])
                            taps[channel, i, j] = gate * between_pixels(features[b, channel], y, x, edge=False)
                for out in range(num_out):
                    first = out // (num_out // groups) * per_group
                    result[b, out, row, column] = (weight[out] * taps[first : first + per_group]).sum()
    return result if bias is None else result + bias[:, None, None]


GEOMETRIES = [
    {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, "deform_groups": 1},
    {"stride": 2, "padding": 1, "dilation": 1, "groups": 2, "deform_groups": 1},
    {"stride": 1, "padding": 2, "dilation": 2, "groups": 1, "deform_groups": 2},
    {"stride": 2, "padding": 0, "dilation": 1, "groups": 2, "deform_groups": 4},
]


def deform_inputs(geometry, dtype=torch.float64, device="cpu", whole=True):
    stride, padding, dilation = (geometry[name] for name in ("stride", "padding", "dilation"))
    # Not square, so that swapped axes do not go unnoticed; the kernel is 3 x 2.
    sides = [(side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for side, kernel in ((6, 3), (5, 2))]
    taps = 6 * geometry["deform_groups"]
    shapes = {
        "features": (2, 4, 6, 5),
        "offset": (2, 2 * taps, *sides),
        "weight": (4, 4 // geometry["groups"], 3, 2),
        "mask": (2, taps, *sides),
        "bias": (4,),
    }
    some = {name: drawn(*shape, seed=seed) for seed, (name, shape) in enumerate(shapes.items())}
    some["mask"] = some["mask"].sigmoid()
    # Half precision holds what is rounded so; but rounded offsets meet the kinks at whole pixels.
    return {name: (value.bfloat16() if whole else value).to(device, dtype) for name, value in some.items()}


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES])
def test_plain_deformable_convolution(geometry, dtype, device):
    given = deform_inputs(geometry, dtype, device)
    module = ops.DeformConv2d(4, 4, (3, 2), bias=False, **geometry).to(device, dtype)
    module.weight.data.copy_(given["weight"])
    exact = {name: value.double().cpu() for name, value in given.items()}
    loops = {name: value for name, value in geometry.items() if name != "groups"}
    expected = deform_by_loops(exact["features"], exact["weight"], exact["offset"], None, None, **loops)
    same(module(given["features"], given["offset"]), expected, dtype)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES])
def test_modulated_deformable_convolution(geometry, with_bias, dtype, device):
    given = deform_inputs(geometry, dtype, device)
    module = ops.ModulatedDeformConv2d(4, 4, (3, 2), bias=with_bias, **geometry).to(device, dtype)
    module.weight.data.copy_(given["weight"])
    if with_bias:
        module.bias.data.copy_(given["bias"])
    exact = {name: value.double().cpu() for name, value in given.items()}
    loops = {name: value for name, value in geometry.items() if name != "groups"}
    bias = exact["bias"] if with_bias else None
    expected = deform_by_loops(exact["features"], exact["weight"], exact["offset"], exact["mask"], bias, **loops)
    same(module(given["features"], given["offset"], given["mask"]), expected, dtype)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_gradients_of_deformable_convolutions(geometry, device):
    given = {
        name: value.requires_grad_() for name, value in deform_inputs(geometry, device=device, whole=False).items()
    }
    plain = [given[name] for name in ("features", "offset", "weight")]
    numbers = [geometry[name] for name in ("stride", "padding", "dilation", "groups", "deform_groups")]
    quick = {"nondet_tol": 1e-8, "fast_mode": True}
    assert gradcheck(lambda *some: ops.deform_conv2d(*some, *numbers), plain, **quick)
    gated = [given[name] for name in ("features", "offset", "mask", "weight")]
    assert gradcheck(lambda *some: ops.modulated_deform_conv2d(*some, None, *numbers), gated, **quick)
    whole = [*gated, given["bias"]]
    assert gradcheck(lambda *some: ops.modulated_deform_conv2d(*some, *numbers), whole, **quick)


def test_the_packed_module_learns_its_own_offsets(device):
    torch.manual_seed(0)
    module = ops.ModulatedDeformConv2dPack(4, 3, 3, padding=1, deform_groups=2).to(device)
    features = drawn(1, 4, 6, 5, device=device).float()
    # It begins with offsets of 0 and gates of 1/2.
    expected = torch.nn.functional.conv2d(features, module.weight, padding=1) / 2 + module.bias[:, None, None]
    torch.testing.assert_close(module(features), expected, rtol=1e-4, atol=1e-4)
    module(features).square().sum().backward()
    assert module.conv_offset.weight.grad.abs().sum() > 0


def focal_by_definition(logits, target, weight, gamma, alpha):
    """Lin et al. 2017, eq. 5, with log p taken of the logit, which is exact for large ones."""
    rows = []
    for row, label in zip(logits, target.tolist(), strict=True):
        for column, logit in enumerate(row):
            sign, factor = (1, alpha) if column == label else (-1, 1 - alpha)
            if weight is not None and label < len(row):
                factor = factor * weight[label]
            truth = sign * logit
            log_p = -torch.log1p(torch.exp(-truth.abs())) + truth.clamp(max=0)
            rows.append(-factor * (1 - torch.exp(log_p)) ** gamma * log_p)
    return torch.stack(rows).view_as(logits)


TARGET = torch.tensor([0, 1, 2, 3, 3, 1])  # of three categories: 3 is background


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES])
def test_sigmoid_focal_loss(gamma, weighted, dtype, device):
    logits = (3 * drawn(6, 3)).bfloat16().double()
    weight = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64) if weighted else None
    expected = focal_by_definition(logits, TARGET, weight, gamma, 0.25)
    module = ops.SigmoidFocalLoss(gamma, 0.25, None if weight is None else weight.to(device, dtype), "none")
    same(module(logits.to(device, dtype), TARGET.to(device)), expected, dtype)


@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_the_gradient_of_sigmoid_focal_loss(gamma, reduction, device):
    module = ops.SigmoidFocalLoss(
        gamma, 0.25, torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64, device=device), reduction
    )
    logits = (3 * drawn(6, 3, device=device)).requires_grad_()
    if reduction == "none":  # mmcv multiplies by the upstream gradient
        found = torch.autograd.grad(module(logits, TARGET.to(device)).sum(), logits)[0]
        again = logits.detach().cpu().requires_grad_()
        focal_by_definition(again, TARGET, module.weight.cpu(), gamma, 0.25).sum().backward()
        same(found, again.grad, torch.float64)
    else:
        assert gradcheck(lambda some: module(some, TARGET.to(device)), logits)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_focal_loss_of_extreme_logits(gamma, dtype, device):
    logits = torch.tensor([[100.0, -100.0], [-100.0, 100.0]], dtype=dtype, device=device).requires_grad_()
    loss = ops.SigmoidFocalLoss(gamma, 0.25, reduction="none")(logits, torch.tensor([0, 0], device=device))
    same(loss.detach(), torch.tensor([[0.0, 0.0], [25.0, 75.0]]), dtype)
    loss.sum().backward()
    same(logits.grad, torch.tensor([[0.0, 0.0], [-0.25, 0.75]]), dtype)


def nms_by_loops(boxes, scores, labels, threshold):
    kept = []
    for row in sorted(range(len(boxes)), key=lambda row: -float(scores[row])):
        for other in kept:
            if labels[row] == labels[other]:
                low, high = (
                    torch.maximum(boxes[row, :2], boxes[other, :2]),
                    torch.minimum(boxes[row, 2:], boxes[other, 2:]),
                )
                shared = float((high - low).clamp(min=0).prod())
                areas = [float((boxes[i, 2:] - boxes[i, :2]).prod()) for i in (row, other)]
                if shared / (sum(areas) - shared) > threshold:
                    break
        else:
            kept.append(row)
    return kept


@pytest.mark.parametrize("seed", range(5))
def test_batched_nms(seed, device):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(60, 2, generator=generator) * 1000
    boxes = torch.cat([corners, corners + 50 + torch.rand(60, 2, generator=generator) * 400], 1)
    scores, labels = torch.rand(60, generator=generator), torch.randint(0, 3, (60,), generator=generator)
    found, kept = ops.batched_nms(
        boxes.to(device), scores.to(device), labels.to(device), {"type": "nms", "iou_threshold": 0.4}
    )
    assert kept.tolist() == nms_by_loops(boxes, scores, labels, 0.4)
    torch.testing.assert_close(found.cpu(), torch.cat([boxes[kept.cpu()], scores[kept.cpu(), None]], 1))
    assert ops.nms(boxes[:0].to(device), scores[:0].to(device), 0.4)[1].tolist() == []  # batched_nms is not for nothing


@pytest.mark.parametrize("dtype", HALVES)
def test_nms_does_not_round_coordinates(dtype, device):
    # 1,000 and 1,002 are one number in bfloat16 if sums of them are: IoU 2/4 by hand, kept at 0.6.
    boxes = torch.tensor([[1000.0, 0, 1004, 4], [1000, 0, 1002, 4]], device=device)
    kept = ops.nms(boxes, torch.tensor([0.9, 0.8], device=device).to(dtype), 0.6)[1]
    assert kept.tolist() == [0, 1]


# Boxes of widths 10 and 9 share 9/10; the third is alone.
NEAR = torch.tensor([[0.0, 0, 10, 10], [0, 0, 9, 10], [50, 50, 60, 60]])
SCORES = torch.tensor([0.9, 0.8, 0.3])


@pytest.mark.parametrize(
    "method, expected",
    [
        ("naive", [(0, 0.9), (2, 0.3)]),
        ("linear", [(0, 0.9), (2, 0.3), (1, 0.8 * 0.1)]),
        ("gaussian", [(0, 0.9), (2, 0.3), (1, 0.8 * math.exp(-0.81 / 0.5))]),
    ],
)
def test_soft_nms(method, expected, device):
    found, kept = ops.soft_nms(NEAR.to(device), SCORES.to(device), 0.3, 0.5, 0.01, method)
    assert kept.tolist() == [row for row, _ in expected]
    torch.testing.assert_close(found[:, 4].cpu(), torch.tensor([score for _, score in expected]))
    torch.testing.assert_close(found[:, :4].cpu(), NEAR[kept.cpu()])


def test_soft_nms_drops_low_scores_and_takes_nothing(device):
    assert ops.soft_nms(NEAR.to(device), SCORES.to(device), 0.3, 0.5, 0.35, "linear")[1].tolist() == [0]
    assert ops.soft_nms(NEAR[:0].to(device), SCORES[:0].to(device))[1].tolist() == []
    # With inclusive pixels 99/121 would be 110/121: the linear factor tells them apart.
    lowered = ops.soft_nms(NEAR.to(device), SCORES.to(device), 0.3, 0.5, 0.01, "linear", offset=1)[0]
    torch.testing.assert_close(float(lowered[2, 4]), 0.8 * (1 - 110 / 121))


def attention_inputs(device, dtype=torch.float64):
    shapes = torch.tensor([[4, 3], [2, 2]], device=device)
    starts = torch.tensor([0, 12], device=device)
    value = drawn(2, 16, 2, 3, device=device).to(dtype)
    locations = drawn(2, 5, 2, 2, 3, 2, seed=1, device=device).sigmoid().to(dtype)
    weights = drawn(2, 5, 2, 2, 3, seed=2, device=device).flatten(3).softmax(-1).view(2, 5, 2, 2, 3).to(dtype)
    return value, shapes, starts, locations, weights


def test_deformable_attention_as_it_runs_on_a_gpu(device):
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    value, shapes, starts, locations, weights = attention_inputs(device)
    expected = torch.zeros(2, 5, 6, dtype=torch.float64)
    for b in range(2):
        for query in range(5):
            for head in range(2):
                for level, (height, width) in enumerate(shapes.tolist()):
                    first = int(starts[level])
                    for channel in range(3):
                        plane = value[b, first : first + height * width, head, channel].view(height, width)
                        for x, y, weight in zip(
                            *locations[b, query, head, level].T.tolist(),
                            weights[b, query, head, level].tolist(),
                            strict=True,
                        ):
                            seen = between_pixels(plane, y * height - 0.5, x * width - 0.5, edge=False)
                            expected[b, query, head * 3 + channel] += weight * seen
    run = MultiScaleDeformableAttnFunction.apply
    same(run(value, shapes, starts, locations, weights, 64), expected, torch.float64)
    leaves = [one.requires_grad_() for one in (value, locations, weights)]
    assert gradcheck(lambda v, at, w: run(v, shapes, starts, at, w, 64), leaves, nondet_tol=1e-8, fast_mode=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_attention_module_runs_on_a_gpu():
    torch.manual_seed(0)
    module = ops.MultiScaleDeformableAttention(embed_dims=16, num_heads=2, num_levels=1, num_points=2)
    query, points = torch.randn(5, 1, 16), torch.rand(1, 5, 1, 2)
    shapes, starts, value = torch.tensor([[4, 4]]), torch.tensor([0]), torch.randn(16, 1, 16)
    arguments = {"reference_points": points, "spatial_shapes": shapes, "level_start_index": starts, "value": value}
    expected = module(query, **arguments)
    found = module.cuda()(query.cuda(), **{name: one.cuda() for name, one in arguments.items()})
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)


def test_a_missing_operator_is_the_users_to_get(device):
    module = ops.CARAFE(kernel_size=3, group_size=1, scale_factor=2)
    masks = drawn(1, 9, 8, 8, device=device).float()
    with pytest.raises(
        mmcv_ops.MissingOperatorError, match=r"'carafe_forward'.*pip install 'mmcv>=2\.1,<2\.2'"
    ) as told:
        module(drawn(1, 2, 4, 4, device=device).float(), masks)
    assert isinstance(told.value, InputError)  # one message on the command line, no traceback
