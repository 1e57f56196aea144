"""Combination of multiple global descriptors (CGD) over a timm backbone.

Legend: B crops, C channels, H W map, D dimensions of the whole embedding, n descriptors.

Source: Jun, Ko, Kim, Kim, Kim, "Combination of Multiple Global Descriptors for Image Retrieval",
2019; GeM: Radenović, Tolias, Chum, 2018.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.retrieval.backbones import make_backbone, published_pixels
from harness.retrieval.settings import Descriptor, RetrieverSettings

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
        kind = map_BCHW.device.type
        with torch.autocast(kind if torch.amp.autocast_mode.is_autocast_available(kind) else "cpu", enabled=False):
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
        backbone: a timm model's name; one that gives a map or tokens.
        backbone_options: keyword arguments for ``timm.create_model``, such as widths and depths.
        descriptors: one or more of ``SPoC``, ``MAC``, ``GeM``; the first feeds the auxiliary classifier.
        output_dim: D, the length of the embedding.
        num_classes: identities of the auxiliary classifier; 0 leaves it out (inference).
        remove_last_stride: keep the resolution of the last stage's input (14×14 at 224 px).
        input_wh: width and height of its images, px, for backbones of a fixed size; None for the published one.

    Raises:
        InputError: timm has no such model, its options do not fit, or it cannot do what is asked; see `make_backbone`.
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
        input_wh: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if not descriptors or len(set(descriptors)) != len(descriptors):
            raise ValueError(f"descriptors: expected one or more, each once, got {list(descriptors)}")
        self.backbone_name = backbone
        self.backbone, self.features = make_backbone(
            backbone, backbone_options or {}, remove_last_stride=remove_last_stride, input_wh=input_wh
        )
        channels = self.features.channels
        self.output_dim = output_dim
        self.pixels = OwnPixels(*published_pixels(backbone))
        self.poolings = nn.ModuleList(POOLINGS[name]() for name in descriptors)
        self.projections = nn.ModuleList(
            nn.Linear(channels, width, bias=False) for width in descriptor_widths(output_dim, len(descriptors))
        )
        self.classifier: nn.Sequential | None = None
        if num_classes:
            self.classifier = nn.Sequential(nn.BatchNorm1d(channels), nn.Linear(channels, num_classes))

    @classmethod
    def of(cls, settings: RetrieverSettings, num_classes: int = 0) -> Self:
        """The network of a recipe, with random weights.

        Args:
            settings: the recipe at its scale.
            num_classes: identities of the auxiliary classifier; 0 leaves it out (inference).

        Raises:
            InputError: as for the class.
        """
        return cls(
            settings.backbone,
            settings.descriptors,
            settings.output_dim,
            num_classes=num_classes,
            backbone_options=settings.backbone_options,
            remove_last_stride=settings.remove_last_stride,
            input_wh=settings.input_wh,
        )

    @property
    def left_out(self) -> tuple[str, ...]:
        """Parts of the backbone that features do not pass through, which are gone."""
        return self.features.left_out

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embed images.

        Args:
            images_BCHW: (B, 3, H, W) float, normalised as `normalise` does.

        Returns:
            The embeddings (B, D), each of length 1, and the classifier's logits (B, classes) before the
            temperature; None without a classifier.
        """
        embeddings_BD, first_BC = self.describe(images_BCHW)
        return embeddings_BD, None if self.classifier is None else self.classify(first_BC)

    def describe(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The embeddings (B, D) of images, and their first descriptor (B, C), which feeds the classifier."""
        map_BCHW = self.features.as_map(self.backbone, self.pixels(images_BCHW))
        pooled = [pooling(map_BCHW) for pooling in self.poolings]
        parts = [
            functional.normalize(linear(vector).float(), dim=1)
            for linear, vector in zip(self.projections, pooled, strict=True)
        ]
        return functional.normalize(torch.cat(parts, dim=1), dim=1), pooled[0]

    def classify(self, first_BC: Tensor, rows: slice = slice(None)) -> Tensor:
        """Logits of some rows of a batch, whose statistics are those of the whole batch."""
        assert self.classifier is not None
        norm, linear = self.classifier
        logits: Tensor = linear(norm(first_BC)[rows])
        return logits


PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)
"""ImageNet's, which timm's weights expect."""


def normalise(images_BCHW: Tensor) -> Tensor:
    """Pixels in [0, 1], float, to zero mean and unit deviation a channel."""
    mean = images_BCHW.new_tensor(PIXEL_MEAN).view(1, 3, 1, 1)
    std = images_BCHW.new_tensor(PIXEL_STD).view(1, 3, 1, 1)
    return (images_BCHW - mean) / std


class OwnPixels(nn.Module):
    """From `normalise`'s pixels to those that a network's published weights expect; most expect the same.

    Args:
        mean: of each channel of a network's pixels, which are in [0, 1].
        std: their deviation.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.gain: Tensor
        self.offset: Tensor
        self.same = tuple(mean) == PIXEL_MEAN and tuple(std) == PIXEL_STD
        gain = [ours / own for ours, own in zip(PIXEL_STD, std, strict=True)]
        offset = [(ours - own) / scale for ours, own, scale in zip(PIXEL_MEAN, mean, std, strict=True)]
        # Not persistent: they follow from the network's name.
        self.register_buffer("gain", torch.tensor(gain).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", torch.tensor(offset).view(1, 3, 1, 1), persistent=False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) float to the same."""
        return images_BCHW if self.same else images_BCHW * self.gain + self.offset
