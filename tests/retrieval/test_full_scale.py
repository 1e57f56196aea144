"""The paper's networks at the paper's size: a step and an embedding of each, on a CPU."""

from collections.abc import Iterator

import pytest
import torch

from harness.retrieval.cgd import CGD, normalise
from harness.retrieval.module import RetrieverModule
from harness.retrieval.recipes import load_recipes
from harness.retrieval.settings import RetrieverSettings

RECIPES = load_recipes()


def network_of(settings: RetrieverSettings) -> str:
    decisive = {"backbone", "backbone_options", "remove_last_stride", "descriptors", "output_dim", "input_wh"}
    return settings.model_dump_json(include=decisive)


GROUPS: dict[str, list[str]] = {}
for _name, _recipe in RECIPES.items():
    GROUPS.setdefault(network_of(_recipe.full), []).append(_name)


def test_the_paper_has_five_networks():
    assert sorted(GROUPS.values(), key=len) == [
        ["m9"],
        ["m10"],
        ["m17"],
        ["m11", "m12"],
        ["m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m13", "m14", "m15", "m16"],
    ]


def batch_of(settings: RetrieverSettings) -> dict[str, object]:
    """Two garments, twice each."""
    width, height = settings.input_wh
    random = torch.Generator().manual_seed(1)
    return {
        "canvases": torch.randint(0, 255, (4, height, width, 3), dtype=torch.uint8, generator=random),
        "views": torch.tensor([[0.0, 0.0, float(width), float(height)]] * 4),
        "labels": torch.tensor([0, 0, 1, 1]),
        "step": 0,
    }


def steps_of(names: list[str], network: CGD) -> Iterator[tuple[str, torch.Tensor]]:
    """The loss of every model's first step; those of one network share what it computes."""
    described: list[tuple[torch.Tensor, ...]] = []

    def once(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if not described:
            described.append(CGD.describe(network, images))
            return described[0]
        return tuple(part.detach().requires_grad_() for part in described[0])

    network.describe = once  # type: ignore[method-assign]
    for name in names:
        settings = RECIPES[name].full
        module = RetrieverModule(settings, 2, 100, 1, network)
        assert module.configure_optimizers()["optimizer"].param_groups[0]["initial_lr"] == settings.learning_rate
        yield name, module.training_step(batch_of(settings), 0)
    del network.describe


@pytest.mark.slow
@pytest.mark.parametrize("names", GROUPS.values(), ids=",".join)
def test_every_model_takes_a_step_and_embeds(names: list[str]):
    settings = RECIPES[names[0]].full
    torch.manual_seed(0)
    network = CGD.of(settings, 2).to(memory_format=torch.channels_last)
    losses = {}
    for name, loss in steps_of(names, network):
        assert torch.isfinite(loss), name
        network.zero_grad()
        loss.backward()
        changed = {path.split(".")[0] for path, value in network.named_parameters() if value.grad is not None}
        assert "classifier" in changed, name
        if name == names[0]:
            without = [path for path, value in network.named_parameters() if value.grad is None]
            assert without == []
            assert all(torch.isfinite(value.grad).all() for value in network.parameters())
        losses[name] = float(loss.detach())
    shapes = {name: RECIPES[name].full.losses for name in names}
    # Models of other losses have other losses; those that differ in data or learning rate begin alike.
    for name in names:
        assert (losses[name] == losses[names[0]]) == (shapes[name] == shapes[names[0]])
    width, height = settings.input_wh
    with torch.inference_mode():
        embedded, _ = network.eval()(normalise(torch.rand(1, 3, height, width)))
    assert embedded.shape == (1, 1024)
    assert float(embedded.norm()) == pytest.approx(1, abs=1e-5)
