"""The network of a model's folder, whatever kind of retrieval model it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from harness.retrieval.card import RetrieverCard
from harness.training.cards import CARD_FILE, WEIGHTS_FILE, read, read_trained

if TYPE_CHECKING:
    from torch import nn

    from harness.retrieval.encoders import EncoderCard


def read_model_card(model_dir: Path) -> RetrieverCard | EncoderCard:
    """The card of a retrieval model that is ready, trained here or entered; its weights are those of the card.

    Raises:
        InputError: there is no finished model, its card is damaged, or its weights are missing or others.
    """
    return read_trained(model_dir, _kind_of(model_dir))


def dimensions_of(model_dir: Path) -> int:
    """How many dimensions the embeddings of a model have, by its card alone.

    Raises:
        InputError: there is no finished model, or its card is damaged.
    """
    kind = _kind_of(model_dir)
    card = read(model_dir / CARD_FILE, kind) or read_trained(model_dir, kind)
    return card.recipe.output_dim


def _kind_of(model_dir: Path) -> type[RetrieverCard] | type[EncoderCard]:
    try:
        told = json.loads((model_dir / CARD_FILE).read_bytes())
        kind = told.get("kind") if isinstance(told, dict) else None
    except (OSError, ValueError):
        kind = None  # whoever reads the card says what is wrong
    if kind == "encoder":
        from harness.retrieval.encoders import EncoderCard

        return EncoderCard
    return RetrieverCard


def load_network(model_dir: Path) -> tuple[RetrieverCard | EncoderCard, nn.Module]:
    """The card and the network of a retrieval model, on the CPU.

    Args:
        model_dir: holds ``card.json`` and ``weights.pt``.

    Returns:
        The card, and a network from images (B, 3, H, W), normalised as `harness.retrieval.cgd.normalise` does, to
        embeddings (B, D) of length 1 and something that only training needs.

    Raises:
        InputError: there is no finished model, or the weights are not those the card names.
    """
    import torch

    from harness.retrieval.cgd import CGD
    from harness.retrieval.encoders import Encoder

    card = read_model_card(model_dir)
    network: nn.Module
    with torch.random.fork_rng():
        network = CGD.of(card.recipe) if isinstance(card, RetrieverCard) else Encoder(card.recipe)
    network.load_state_dict(torch.load(model_dir / WEIGHTS_FILE, map_location="cpu", weights_only=True))
    return card, network
