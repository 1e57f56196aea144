import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.retrieval.cgd import CGD, MAC, GeM, SPoC, descriptor_widths, normalise
from harness.retrieval.recipes import load_recipes
from harness.types import InputError

SMALL = {"channels": [8, 16, 16, 24], "stem_width": 8}


def small(descriptors=("GeM", "MAC"), output_dim=10, **more):
    return CGD("resnet10t", descriptors, output_dim, backbone_options=SMALL, **more)


def maps(seed: int = 0) -> torch.Tensor:
    return torch.rand(3, 5, 4, 6, generator=torch.Generator().manual_seed(seed)) + 0.01


def test_pooling_of_a_hand_made_map():
    one_map = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert SPoC()(one_map).item() == 2.5
    assert MAC()(one_map).item() == 4.0
    assert GeM(3.0)(one_map).item() == pytest.approx(((1 + 8 + 27 + 64) / 4) ** (1 / 3))


def test_gem_of_power_one_is_spoc():
    assert torch.allclose(GeM(1.0)(maps()), SPoC()(maps()), atol=1e-6)


def test_gem_tends_to_mac():
    # The mean over 24 places costs at most a factor 24^(1/p).
    exact = maps().double()
    pooled, largest = GeM(400.0)(exact), MAC()(exact)
    assert (pooled <= largest).all()
    assert (pooled >= largest * 24 ** (-1 / 400) * (1 - 1e-6)).all()


@given(st.floats(0.5, 12), st.integers(0, 2**31))
def test_gem_of_any_power_is_its_definition_in_double_precision(power, seed):
    told = (torch.rand(2, 3, 3, 5, generator=torch.Generator().manual_seed(seed)) - 0.2).double()
    pooled = GeM(power).double()(told)
    for image in range(2):
        for channel in range(3):
            values = [max(float(value), 1e-6) ** power for value in told[image, channel].flatten()]
            expected = (sum(values) / len(values)) ** (1 / power)
            assert pooled[image, channel].item() == pytest.approx(expected, rel=1e-6)


def test_gems_gradients_are_those_of_differences():
    exact = maps().double().requires_grad_()
    gem = GeM(3.0).double()
    assert torch.autograd.gradcheck(gem, (exact,))
    assert torch.autograd.gradcheck(
        lambda power: torch.func.functional_call(gem, {"power": power}, (exact.detach(),)),
        (torch.tensor([2.5], dtype=torch.float64, requires_grad=True),),
    )


@pytest.mark.parametrize("count", [1, 2, 3])
def test_descriptors_in_any_combination_and_order(count):
    for descriptors in itertools.permutations(("SPoC", "MAC", "GeM"), count):
        network = small(descriptors, 1024, num_classes=2).eval()
        images = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
        embeddings, logits = network(images)
        assert embeddings.shape == (2, 1024)
        assert torch.allclose(embeddings.norm(dim=1), torch.ones(2), atol=1e-5)
        # The branches in the order in which they are named, each of length 1 before the last division.
        starts = [0, *itertools.accumulate(descriptor_widths(1024, count))]
        map_BCHW = network.backbone.forward_features(images)
        poolings = {"SPoC": SPoC(), "MAC": MAC(), "GeM": GeM(3.0)}
        for row, name in enumerate(descriptors):
            vector = poolings[name](map_BCHW) @ network.projections[row].weight.T
            part = embeddings[:, starts[row] : starts[row + 1]] * count**0.5
            assert torch.allclose(part, vector / vector.norm(dim=1, keepdim=True), atol=1e-5)
        assert torch.allclose(logits, network.classifier(poolings[descriptors[0]](map_BCHW)), atol=1e-5)


def test_gem_learns_its_power():
    gem = GeM()
    gem(maps()).sum().backward()
    assert gem.power.item() == 3.0
    assert gem.power.grad is not None
    assert gem.power.grad.item() > 0  # the mean grows with p


@given(st.integers(1, 300), st.integers(1, 5))
def test_widths_add_up_and_are_even(output_dim, num_descriptors):
    if num_descriptors > output_dim:
        with pytest.raises(ValueError, match="cannot split"):
            descriptor_widths(output_dim, num_descriptors)
        return
    widths = descriptor_widths(output_dim, num_descriptors)
    assert sum(widths) == output_dim
    assert max(widths) - min(widths) <= 1


def test_embedding_is_the_normalised_concatenation_of_normalised_branches():
    network = small().eval()
    images = torch.randn(2, 3, 64, 48)
    embeddings, logits = network(images)
    assert logits is None
    features = network.backbone.forward_features(images)
    branches = []
    for pooling, linear in zip((GeM(3.0), MAC()), network.projections, strict=True):
        vector = pooling(features) @ linear.weight.T
        branches.append(vector / vector.norm(dim=1, keepdim=True))
    assert torch.allclose(embeddings, torch.cat(branches, dim=1) / 2**0.5, atol=1e-6)


def test_classifier_reads_the_first_descriptor():
    network = small(("MAC", "SPoC"), num_classes=4).eval()
    images = torch.randn(2, 3, 64, 64)
    _, logits = network(images)
    assert torch.allclose(logits, network.classifier(MAC()(network.backbone.forward_features(images))), atol=1e-6)


@pytest.mark.parametrize(("remove", "cells"), [(True, (4, 7)), (False, (2, 4))])
def test_last_stride(remove, cells):
    network = small(remove_last_stride=remove)
    features = network.backbone.forward_features(torch.randn(1, 3, 64, 112))
    assert tuple(features.shape[2:]) == cells
    assert all(max(m.dilation) == 1 for m in network.modules() if isinstance(m, torch.nn.Conv2d))


def test_normalise_centres_the_mean_colour():
    grey = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert normalise(grey).abs().max() < 1e-6


def test_unknown_backbone_names_near_ones():
    with pytest.raises(InputError, match="resnet152d"):
        CGD("resnet152x", ["GeM"], 8)


def test_unfit_backbone_options():
    with pytest.raises(InputError, match="num_wings"):
        CGD("resnet10t", ["GeM"], 8, backbone_options={"num_wings": 2})


@pytest.mark.parametrize("descriptors", [[], ["GeM", "GeM"]])
def test_descriptors_are_one_or_more_each_once(descriptors):
    with pytest.raises(ValueError, match="each once"):
        small(descriptors)


@pytest.mark.parametrize("name", list(load_recipes()))
def test_every_model_embeds_to_unit_length_at_tiny_scale(name):
    settings = load_recipes()[name].tiny
    _check_unit_length(settings, settings.input_wh)


def _check_unit_length(settings, input_wh):
    torch.manual_seed(0)
    network = CGD.of(settings).eval()
    with torch.inference_mode():
        embeddings, _ = network(torch.randn(2, 3, input_wh[1], input_wh[0]))
    assert embeddings.shape == (2, settings.output_dim)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(2), atol=1e-5)
