"""Backbones of many families of timm, small ones with small images."""

import pytest
import timm
import torch
from torch import nn

from harness.retrieval.backbones import check_backbone, make_backbone, published_pixels, published_wh
from harness.retrieval.cgd import CGD, PIXEL_MEAN, PIXEL_STD, OwnPixels, normalise
from harness.types import InputError

WITHOUT_STRIDE = [
    "resnet10t",
    "seresnext26t_32x4d",
    "convnext_atto",
    "efficientnet_b0",
    "tf_efficientnet_b0",
    "regnety_002",
    "mobilevit_xxs",
    "res2net50_26w_4s",
]
"""Families whose last stride timm can leave out."""

WITH_STRIDE = [
    "swin_tiny_patch4_window7_224",
    "vit_tiny_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "deit_tiny_distilled_patch16_224",
    "eva02_tiny_patch14_224",
    "maxvit_nano_rw_256",
    "mobilenetv3_small_100",
    "mambaout_femto",
    "inception_next_atto",
    "xcit_nano_12_p16_224",
    "densenet121",
]


@pytest.mark.parametrize(
    ("name", "remove"), [(name, True) for name in WITHOUT_STRIDE] + [(name, False) for name in WITH_STRIDE]
)
def test_a_backbone_of_any_family_embeds_and_learns_in_all_its_parts(name: str, remove: bool):
    torch.manual_seed(0)
    wh = (64, 96)
    network = CGD(name, ("GeM", "MAC", "SPoC"), 48, num_classes=3, remove_last_stride=remove, input_wh=wh)
    images = torch.randn(2, 3, wh[1], wh[0])
    map_BCHW = network.features.as_map(network.backbone, images)
    assert map_BCHW.ndim == 4
    assert map_BCHW.shape[1] == network.features.channels == network.projections[0].in_features
    if remove:
        assert map_BCHW.shape[2:] == (6, 4)
    embeddings, logits = network(images)
    assert embeddings.shape == (2, 48)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(2), atol=1e-5)
    (embeddings[:, ::2].sum() + logits[:, 0].sum()).backward()
    # A parameter without a gradient would stop training on several GPUs.
    idle = [path for path, value in network.named_parameters() if value.grad is None]
    assert idle == []


def test_a_last_stride_that_timm_cannot_leave_out():
    for name in ("swin_tiny_patch4_window7_224", "vit_tiny_patch16_224", "densenet121"):
        with pytest.raises(InputError, match=rf"{name}.*say remove_last_stride = false in the recipe"):
            make_backbone(name, {}, remove_last_stride=True)


def test_an_option_that_does_not_fit_is_named_and_not_the_stride():
    with pytest.raises(InputError, match=r"vit_tiny_patch16_224.*does not take these options .*num_wings"):
        make_backbone("vit_tiny_patch16_224", {"num_wings": 2}, remove_last_stride=True)


def test_images_of_a_size_that_a_network_cannot_take():
    with pytest.raises(InputError, match=r"does not take images of 64x64 .*published for 240x240"):
        make_backbone("crossvit_9_240", {}, input_wh=(64, 64))


def test_maps_of_channels_last_networks_are_turned():
    backbone, features = make_backbone("swin_tiny_patch4_window7_224", {}, input_wh=(64, 96))
    images = torch.randn(1, 3, 96, 64)
    backbone.eval()
    theirs = backbone.forward_features(images)
    assert features.layout == "NHWC"
    assert theirs.shape == (1, 3, 2, 768)
    assert torch.equal(features.as_map(backbone, images), theirs.permute(0, 3, 1, 2))


def test_tokens_become_a_map_without_class_and_register_tokens():
    backbone, features = make_backbone("vit_small_patch14_reg4_dinov2", {}, input_wh=(70, 98))
    images = torch.randn(1, 3, 98, 70)
    tokens = backbone.eval().forward_features(images)
    assert (features.layout, features.num_prefix_tokens) == ("tokens", 5)
    assert tokens.shape[1] == 5 + 5 * 7
    map_BCHW = features.as_map(backbone, images)
    assert map_BCHW.shape == (1, 384, 35, 1)
    assert torch.allclose(map_BCHW.mean(dim=(2, 3)), tokens[:, 5:].mean(dim=1), atol=1e-6)


def test_a_network_that_normalises_in_its_head_does_it_at_every_place():
    backbone, features = make_backbone("convnext_atto", {}, input_wh=(64, 64))
    assert features.has_norm
    whole = timm.create_model("convnext_atto", num_classes=0)
    whole.load_state_dict(backbone.state_dict())
    images = torch.randn(2, 3, 64, 64)
    found = features.as_map(backbone.eval(), images)
    expected = whole.eval().head.norm(whole.forward_features(images))
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet10t", "resnet26d", "convnext_atto", "tf_efficientnet_b0", "res2net50_26w_4s"])
def test_without_its_stride_a_network_has_the_same_tensors(name: str):
    plain, _ = make_backbone(name, {})
    kept, _ = make_backbone(name, {}, remove_last_stride=True)
    assert {key: value.shape for key, value in plain.state_dict().items()} == {
        key: value.shape for key, value in kept.state_dict().items()
    }
    layers = dict(plain.named_modules())
    for path, layer in kept.named_modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.kernel_size == layers[path].kernel_size
            assert layer.dilation == layers[path].dilation


def test_cgds_map_has_14_by_14_places_at_224():
    backbone, features = make_backbone("resnet26d", {}, remove_last_stride=True)
    assert features.as_map(backbone.eval(), torch.randn(1, 3, 224, 224)).shape == (1, 2048, 14, 14)


@pytest.mark.parametrize("name", ["resnet26d", "resnet18"])
def test_at_every_other_place_the_stage_without_stride_begins_as_the_stage_with_it(name: str):
    """Only the stride is gone: what the first block computes where the stride would look is what it was."""
    torch.manual_seed(3)
    plain, _ = make_backbone(name, {})
    kept, _ = make_backbone(name, {}, remove_last_stride=True)
    kept.load_state_dict(plain.state_dict())
    below = torch.randn(1, plain.layer3[-1].bn1.num_features if name == "resnet18" else 1024, 8, 12)
    with torch.no_grad():
        dense, sparse = kept.eval().layer4[0](below), plain.eval().layer4[0](below)
    assert dense.shape[2:] == (8, 12)
    assert torch.allclose(dense[:, :, ::2, ::2], sparse, atol=1e-5)


def test_pixels_are_those_that_the_network_was_trained_with():
    pixels = torch.rand(2, 3, 4, 5)
    mean, std = published_pixels("vit_base_patch16_siglip_224")
    assert mean == std == (0.5, 0.5, 0.5)
    assert torch.allclose(OwnPixels(mean, std)(normalise(pixels)), (pixels - 0.5) / 0.5, atol=1e-6)
    same = OwnPixels(PIXEL_MEAN, PIXEL_STD)
    assert same(pixels) is pixels
    assert published_pixels("resnet152d") == (PIXEL_MEAN, PIXEL_STD)
    assert published_wh("vit_small_patch14_dinov2") == (518, 518)


def test_a_backbone_may_name_the_weights_that_are_meant():
    assert published_wh("resnet152d.ra2_in1k") == (256, 256)
    check_backbone("resnet152d.ra2_in1k")
    with pytest.raises(InputError, match=r"'resnet152d\.nonsense': .*there are .*resnet152d\.ra2_in1k"):
        check_backbone("resnet152d.nonsense")
