from __future__ import annotations

import sys

import pytest
import torch

from harness.detection import bridge
from harness.detection.recipes import load_recipes
from harness.types import InputError


def test_merged_lays_dicts_over_one_another_and_over_every_stage_of_a_list():
    base = {"a": {"x": 1, "y": 2}, "stages": [{"n": 1, "keep": 5}, {"n": 2}], "list": [1, 2]}
    changed = bridge.merged(base, {"a": {"y": 3}, "stages": {"n": 9}, "list": [7]})
    assert changed == {"a": {"x": 1, "y": 3}, "stages": [{"n": 9, "keep": 5}, {"n": 9}], "list": [7]}
    assert base["a"] == {"x": 1, "y": 2}


def test_merged_can_replace_a_dict():
    assert bridge.merged({"a": {"x": 1}}, {"a": {"_delete_": True, "z": 2}}) == {"a": {"z": 2}}


def test_an_unknown_config_lists_its_neighbours():
    with pytest.raises(InputError, match=r"atss/nothing\.py.*atss_r50_fpn_1x_coco\.py"):
        bridge.load_model_config("atss/nothing.py")


def test_changes_that_mmdet_refuses_are_the_users_fault():
    with pytest.raises(InputError, match="cannot build it"):
        bridge.Network("atss/atss_r50_fpn_1x_coco.py", {"backbone": {"no_such_setting": 1}})


@pytest.fixture(scope="module")
def network():
    scale = load_recipes()["ATSS"].tiny
    torch.manual_seed(0)
    network = bridge.Network(scale.config, scale.model)
    network.initialise()
    return network


def test_no_mmcv_is_compiled_or_torchvision_stands_in():
    assert bridge.provide_operators() in {"mmcv", "torchvision"}


def test_thirteen_categories_and_no_downloaded_weights(network):
    assert network.model.bbox_head.num_classes == 13
    assert not any("Pretrained" in str(getattr(part, "init_cfg", None)) for part in network.modules())


def test_category_13_is_the_last_label_and_not_the_background(network):
    photos = torch.zeros(1, 96, 96, 3, dtype=torch.uint8)
    box = torch.tensor([[10.0, 10, 60, 60]])
    network.zero_grad()
    network.losses(photos, [bridge.Targets(box, torch.tensor([13]))])["loss_cls"].backward()
    slopes = network.model.bbox_head.atss_cls.bias.grad
    assert int(slopes.argmin()) == 12  # only its own category is pulled up


def test_predicted_categories_begin_at_1(network):
    network.eval()
    network.limit(0.0, 2000)
    photos = torch.randint(0, 255, (1, 96, 96, 3), dtype=torch.uint8)
    found = network.predict(photos, [(96, 96)])[0]
    assert int(found.category_ids.min()) >= 1
    assert int(found.category_ids.max()) <= 13
    assert len(found.scores) > 20
    network.limit(0.0, 7)
    assert len(network.predict(photos, [(96, 96)])[0].scores) == 7
    network.train()


@pytest.mark.parametrize("unfrozen", [False, True])
def test_batch_statistics_stand_still_unless_everything_learns(unfrozen):
    from harness.detection.module import DetectorModule, unfreeze

    scale = load_recipes()["ATSS"].tiny
    pretrained = {"backbone": {"norm_eval": True, "frozen_stages": 1}}
    network = bridge.Network(scale.config, bridge.merged(scale.model, pretrained))
    if unfrozen:
        unfreeze(network)
    DetectorModule(network, scale, 0, 10)
    norms = [part for part in network.model.backbone.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert {norm.training for norm in norms} == {unfrozen}
    assert network.model.backbone.conv1.weight.requires_grad is unfrozen
    assert all(part.training for part in network.model.bbox_head.modules())


def test_rgb_is_normalised_with_the_configs_own_constants(network):
    pixels = network.normalised(torch.tensor([[[[255, 0, 124]]]], dtype=torch.uint8))
    expected = [(255 - 123.675) / 58.395, (0 - 116.28) / 57.12, (124 - 103.53) / 57.375]
    torch.testing.assert_close(pixels.flatten(), torch.tensor(expected))
    assert network.padding_rgb == (124, 116, 104)


def test_a_caffe_config_sees_bgr():
    scale = load_recipes()["CenterNet"].tiny
    network = bridge.Network("centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py", scale.model)
    pixels = network.normalised(torch.tensor([[[[10, 20, 30]]]], dtype=torch.uint8))
    torch.testing.assert_close(pixels.flatten(), torch.tensor([30 - 103.53, 20 - 116.28, 10 - 123.675]))
    assert network.padding_rgb == (124, 116, 104)


def test_a_network_that_learns_masks_wants_masks():
    scale = load_recipes()["CascadeMaskRCNN"].tiny
    network = bridge.Network(scale.config, scale.model)
    target = bridge.Targets(torch.tensor([[10.0, 10, 60, 60]]), torch.tensor([1]))
    with pytest.raises(ValueError, match="learns masks"):
        network.losses(torch.zeros(1, 96, 96, 3, dtype=torch.uint8), [target])
    network.only_boxes()
    assert not network.learns_masks


def test_regions_are_not_rounded_when_a_cascade_trains_in_bfloat16(monkeypatch):
    from harness.detection import mmcv_ops

    scale = load_recipes()["CascadeMaskRCNN"].tiny
    torch.manual_seed(0)
    cascade = bridge.Network(scale.config, scale.model)
    cascade.initialise()
    seen = []
    operator = mmcv_ops.roi_align_forward

    def looking(features, rois, *rest, **more):
        seen.append((features.dtype, rois))
        return operator(features, rois, *rest, **more)

    monkeypatch.setattr(sys.modules["mmcv.ops.roi_align"].ext_module, "roi_align_forward", looking)
    box = torch.tensor([[20.3, 15.7, 77.1, 82.9]])
    masks = torch.ones(1, 96, 96, dtype=torch.uint8).numpy()
    with torch.autocast("cpu", torch.bfloat16):
        cascade.losses(torch.zeros(1, 96, 96, 3, dtype=torch.uint8), [bridge.Targets(box, torch.tensor([3]), masks)])
    assert {kind for kind, _ in seen} == {torch.float32}
    # The annotated box is one of the regions that are sampled.
    assert any((rois[:, 1:] - box).abs().max(dim=1)[0].min() < 1e-4 for _, rois in seen if len(rois))
