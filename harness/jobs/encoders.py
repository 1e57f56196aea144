"""Enter published image encoders as retrieval models of a working folder."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.retrieval.team_recipes import check_name
from harness.types import InputError
from harness.workplace import Workplace

if TYPE_CHECKING:
    from harness.retrieval.encoders import EncoderCard


def enter_encoder(
    place: Workplace,
    name: str,
    backbone: str,
    *,
    init_from: str = "imagenet",
    input_px: str | None = None,
    margin: float = 0.05,
    force: bool = False,
) -> EncoderCard:
    """Make a model of a timm network as it was published.

    Args:
        place: the working folder.
        name: of the model.
        backbone: timm's name of the network.
        init_from: ``imagenet``, ``none`` or a path; see `harness.retrieval.encoders.enter_encoder`.
        input_px: size of crops as WIDTHxHEIGHT; None for what the network was published with.
        margin: context around the box, as a share of its width and height on each side.
        force: replace a model of this name.

    Raises:
        InputError: the name is taken or none, or there is no such network, or no weights for it.
    """
    check_name(name)
    place.refuse_near_name("retriever", name)
    input_wh = None if input_px is None else _sides(input_px)

    from harness.retrieval.encoders import encoder_settings
    from harness.retrieval.encoders import enter_encoder as enter

    settings = encoder_settings(backbone, input_wh, margin)
    return enter(name, settings, place.model_folder("retriever", name), init_from=init_from, force=force)


def _sides(text: str) -> tuple[int, int]:
    sides = re.fullmatch(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", text)
    if sides is None:
        raise InputError(f"--input {text!r}: expected WIDTHxHEIGHT in pixels, such as 224x224")
    return int(sides[1]), int(sides[2])
