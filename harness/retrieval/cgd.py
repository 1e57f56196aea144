"""Combination of multiple global descriptors (CGD) over a timm backbone; the only door to timm.

Legend: B crops, C channels, H W map, D dimensions of the whole embedding, n descriptors.

Source: Jun, Ko, Kim, Kim, Kim, "Combination of Multiple Global Descriptors for Image Retrieval",
2019; GeM: Radenović, Tolias, Chum, 2018.
"""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.retrieval.settings import Descriptor
from harness.types import InputError

GEM_START_POWER = 3.0
GEM_FLOOR = 1e-6
"""Activations below this are raised to it before the power: x^p has no gradient at 0 for p < 1."""


class SPoC(nn.Module):
    """Sum-pooled convolutions: the mean of each channel over the map."""

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) float to (B, C)."""
        return map_BCHW.mean(dim=(2, 3))


class MAC(nn.Module):
    """Maximum activation of convolutions: the largest value of each channel over the map."""

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) float to (B, C)."""
        return map_BCHW.amax(dim=(2, 3))


class GeM(nn.Module):
    """Generalised mean of each channel over the map: (mean x^p)^(1/p), with p learned.

    Args:
        power: the p to start with, above 0; 1 is SPoC, and large p tends to MAC.
    """

    def __init__(self, power: float = GEM_START_POWER) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor([float(power)]))

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) float to (B, C), computed in float32 because x^3 overflows half precision."""
        with torch.autocast(map_BCHW.device.type, enabled=False):
            wide = map_BCHW.to(torch.promote_types(map_BCHW.dtype, torch.float32)).clamp(min=GEM_FLOOR)
            return wide.pow(self.power).mean(dim=(2, 3)).pow(1.0 / self.power)


POOLINGS: Mapping[Descriptor, type[nn.Module]] = {"SPoC": SPoC, "MAC": MAC, "GeM": GeM}


def descriptor_widths(output_dim: int, num_descriptors: int) -> list[int]:
    """D split over n branches as evenly as whole numbers allow; earlier branches take the remainder."""
    if not 1 <= num_descriptors <= output_dim:
        raise ValueError(f"cannot split {output_dim} dimensions over {num_descriptors} descriptors")
    each, rest = divmod(output_dim, num_descriptors)
    return [each + (branch < rest) for branch in range(num_descriptors)]


class CGD(nn.Module):
    """A backbone, one branch for each global descriptor, and a classifier that only training uses.

    Args:
        backbone: a timm model's name.
        backbone_options: keyword arguments for ``timm.create_model``, such as widths and depths.
        descriptors: one or more of ``SPoC``, ``MAC``, ``GeM``; the first feeds the auxiliary classifier.
        output_dim: D, the length of the embedding.
        num_classes: identities of the auxiliary classifier; 0 leaves it out (inference).
        remove_last_stride: keep the resolution of the last stage's input (14×14 at 224 px).
        pretrained: start from timm's published weights.
        weights_file: start from a state dict of the backbone in this file instead.

    Raises:
        InputError: timm has no such model, its options do not fit, or the pretrained weights cannot be had.
    """

    def __init__(
        self,
        backbone: str,
        descriptors: Sequence[Descriptor],
        output_dim: int,
        *,
        num_classes: int = 0,
        backbone_options: Mapping[str, Any] | None = None,
        remove_last_stride: bool = True,
        pretrained: bool = False,
        weights_file: Path | None = None,
    ) -> None:
        super().__init__()
        if not descriptors or len(set(descriptors)) != len(descriptors):
            raise ValueError(f"descriptors: expected one or more, each once, got {list(descriptors)}")
        self.backbone = _make_backbone(backbone, dict(backbone_options or {}), remove_last_stride, pretrained)
        if weights_file is not None:
            _load_backbone(self.backbone, weights_file)
        channels: int = self.backbone.num_features  # type: ignore[assignment]
        self.output_dim = output_dim
        self.poolings = nn.ModuleList(POOLINGS[name]() for name in descriptors)
        self.projections = nn.ModuleList(
            nn.Linear(channels, width, bias=False) for width in descriptor_widths(output_dim, len(descriptors))
        )
        self.classifier: nn.Module | None = None
        if num_classes:
            self.classifier = nn.Sequential(nn.BatchNorm1d(channels), nn.Linear(channels, num_classes))

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embed images.

        Args:
            images_BCHW: (B, 3, H, W) float, normalised as `normalise` does.

        Returns:
            The embeddings (B, D), each of length 1, and the classifier's logits (B, classes) before the
            temperature; None without a classifier.
        """
        map_BCHW = self.backbone.forward_features(images_BCHW)  # type: ignore[operator]
        pooled = [pooling(map_BCHW) for pooling in self.poolings]
        parts = [
            functional.normalize(linear(vector).float(), dim=1)
            for linear, vector in zip(self.projections, pooled, strict=True)
        ]
        embeddings_BD = functional.normalize(torch.cat(parts, dim=1), dim=1)
        return embeddings_BD, None if self.classifier is None else self.classifier(pooled[0])


PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)
"""ImageNet's, which timm's weights expect."""


def normalise(images_BCHW: Tensor) -> Tensor:
    """Pixels in [0, 1], float, to zero mean and unit deviation a channel."""
    mean = images_BCHW.new_tensor(PIXEL_MEAN).view(1, 3, 1, 1)
    std = images_BCHW.new_tensor(PIXEL_STD).view(1, 3, 1, 1)
    return (images_BCHW - mean) / std


def _make_backbone(name: str, options: dict[str, Any], remove_last_stride: bool, pretrained: bool) -> nn.Module:
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=8)
        raise InputError(f"backbone {name!r}: timm {timm.__version__} has no such model; near: {', '.join(near)}")
    if remove_last_stride:
        options["output_stride"] = 16
    try:
        backbone: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0, global_pool="", **options)
    except (OSError, RuntimeError) as error:
        # timm's hub client fails with its own kinds of OSError offline, and with RuntimeError for a bad state dict.
        if not pretrained:
            raise
        raise InputError(
            f"backbone {name!r}: the pretrained weights could not be loaded ({str(error).splitlines()[0]}); "
            "set pretrained = false to start from random weights, or give the weights as a file"
        ) from error
    except TypeError as error:
        raise InputError(f"backbone {name!r}: timm does not take these options {options}: {error}") from error
    if remove_last_stride:
        _undo_dilation(backbone)
    return backbone


def _undo_dilation(backbone: nn.Module) -> None:
    """Make dilated convolutions plain ones.

    timm trades the stride of ``output_stride=16`` for dilation; CGD only leaves the stride out.
    """
    for layer in backbone.modules():
        if isinstance(layer, nn.Conv2d) and max(layer.dilation) > 1 and layer.kernel_size[0] % 2:
            layer.dilation = (1, 1)
            layer.padding = (layer.kernel_size[0] // 2, layer.kernel_size[1] // 2)


def _load_backbone(backbone: nn.Module, weights_file: Path) -> None:
    try:
        state = torch.load(weights_file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        why = str(error).splitlines()[0]  # torch goes on for a page
        raise InputError(
            f"{weights_file}: expected a state dict saved by torch.save, could not read it: {why}"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise InputError(f"{weights_file}: expected a state dict of tensors, got a {type(state).__name__}")
    try:
        missing, unexpected = backbone.load_state_dict(state, strict=False)
    except RuntimeError as error:  # tensors of other shapes
        why = str(error).splitlines()[-1].strip()
        raise InputError(f"{weights_file}: not the weights of this backbone: {why}") from error
    unexpected = [key for key in unexpected if not key.startswith(("fc.", "classifier.", "head."))]
    if missing or unexpected:
        raise InputError(
            f"{weights_file}: not the weights of this backbone: {len(missing)} missing (first {missing[:2]}), "
            f"{len(unexpected)} unknown (first {unexpected[:2]})"
        )
