"""Any timm network as a backbone: its last feature map, whatever the family; the door to timm.

A network is tried out on torch's meta device first, where nothing is computed: that says which form its
features have, and which of its layers they do not pass through.

Legend: B images, C channels, H W map, N places of a map or tokens.
"""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from harness.types import InputError

Layout = Literal["NCHW", "NHWC", "tokens"]

REDUCED_STRIDE = 16
"""Input pixels a cell of the last map where the last stride is left out; 14×14 cells at 224."""


@dataclass(frozen=True)
class Features:
    """What a network's features look like.

    Attributes:
        layout: ``NCHW``, ``NHWC``, or ``tokens`` (B, N, C).
        channels: C.
        num_prefix_tokens: class and register tokens, which stand before those of places.
        has_norm: the network normalises features in its head; they are normalised at every place instead.
        left_out: parts of the network that features do not pass through, which are gone.
    """

    layout: Layout
    channels: int
    num_prefix_tokens: int
    has_norm: bool
    left_out: tuple[str, ...]

    def as_map(self, backbone: nn.Module, images_BCHW: Tensor) -> Tensor:
        """The last feature map (B, C, H, W) of a backbone that `make_backbone` made.

        Tokens come as (B, C, N, 1): descriptors pool over places, however these are arranged.
        """
        features: Tensor = backbone.forward_features(images_BCHW)  # type: ignore[operator]
        if self.has_norm:
            features = backbone.head(features)  # type: ignore[operator]
        if self.layout == "NHWC":
            return features.permute(0, 3, 1, 2)
        if self.layout == "tokens":
            return features[:, self.num_prefix_tokens :].transpose(1, 2).unsqueeze(3)
        return features


def make_backbone(
    name: str,
    options: Mapping[str, Any],
    *,
    remove_last_stride: bool = False,
    input_wh: tuple[int, int] | None = None,
) -> tuple[nn.Module, Features]:
    """A timm network with random weights and without what its features do not pass through.

    Args:
        name: timm's name of the network.
        options: keyword arguments for ``timm.create_model``, such as widths and depths.
        remove_last_stride: keep the resolution of the last stage's input.
        input_wh: width and height of its images, px; None for those that timm publishes. Networks of a fixed size are
            made for it, others take any.

    Raises:
        InputError: timm has no such network, its options do not fit, it cannot leave out its last stride, it does not
            take images of that size, or it gives no features by place.
    """
    check_backbone(name)
    width, height = input_wh or published_wh(name)
    given = dict(options)
    if remove_last_stride:
        given["output_stride"] = REDUCED_STRIDE
    with torch.device("meta"):
        chosen, skeleton = _made(name, given, (height, width))
    features = _features(name, skeleton, (height, width))
    backbone = _create(name, chosen)
    for part in features.left_out:
        setattr(backbone, part, nn.Identity())
    if features.has_norm:
        backbone.head = nn.Sequential(OrderedDict(norm=backbone.head.norm))  # type: ignore[union-attr, arg-type]
    if remove_last_stride:
        _undo_dilation(backbone, name, dict(options))
    return backbone, features


def make_encoder_backbone(name: str, input_wh: tuple[int, int] | None = None) -> nn.Module:
    """A whole timm network but for its classifier, with the pooling that it was published with, and random weights.

    Args:
        name: timm's name of the network.
        input_wh: as for `make_backbone`.

    Raises:
        InputError: as for `encoder_width`.
    """
    return _create(name, _encoder_options(name, input_wh)[0], pooled=True)


def encoder_width(name: str, input_wh: tuple[int, int] | None = None) -> int:
    """The length of the vector that a timm network without its classifier gives for an image.

    Args:
        name: timm's name of the network.
        input_wh: as for `make_backbone`.

    Raises:
        InputError: timm has no such network, it does not take images of that size, or it gives no vectors.
    """
    return _encoder_options(name, input_wh)[1]


def _encoder_options(name: str, input_wh: tuple[int, int] | None) -> tuple[dict[str, Any], int]:
    check_backbone(name)
    width, height = input_wh or published_wh(name)
    with torch.device("meta"):
        chosen, skeleton = _made(name, {}, (height, width), pooled=True)
    found = _tried(name, skeleton.eval(), (height, width))
    if not isinstance(found, Tensor) or found.ndim != 2:
        raise InputError(f"backbone {name!r}: gives no vector for an image; take another one")
    return chosen, found.shape[1]


def check_backbone(name: str) -> None:
    """Refuse what is no network of timm.

    Raises:
        InputError: timm has none of that name; the message lists near ones.
    """
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=8)
        told = f"; near: {', '.join(near)}" if near else ""
        raise InputError(f"backbone {name!r}: timm {timm.__version__} has no such model{told}")
    architecture, _, tag = name.partition(".")
    if tag and name not in (published := timm.list_pretrained(f"{architecture}.*")):
        raise InputError(
            f"backbone {name!r}: timm {timm.__version__} publishes no such weights; "
            f"there are {', '.join(published) or 'none'}"
        )


def published_wh(name: str) -> tuple[int, int]:
    """Width and height, px, of the images that a network's published weights were trained on; 224 without any."""
    size = _published(name).get("input_size") or (3, 224, 224)
    return size[2], size[1]


def published_pixels(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation a channel that timm's weights of a network expect; ImageNet's where there are none."""
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    told = _published(name)
    return tuple(told.get("mean") or IMAGENET_DEFAULT_MEAN), tuple(told.get("std") or IMAGENET_DEFAULT_STD)


def _published(name: str) -> dict[str, Any]:
    import timm

    config = timm.get_pretrained_cfg(name)
    return {} if config is None else config.to_dict()


def _candidates(name: str, size_hw: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """How to say to a network which size its images have, the best way first."""
    if _published(name).get("fixed_input_size"):
        # ViTs interpolate their positions by themselves, and pad to whole patches; Swins want to know their windows.
        yield {"dynamic_img_size": True, "dynamic_img_pad": True}
        yield {"dynamic_img_size": True}
        yield {"img_size": size_hw}
    yield {}


def _made(
    name: str, options: dict[str, Any], size_hw: tuple[int, int], *, pooled: bool = False
) -> tuple[dict[str, Any], nn.Module]:
    """The options of the first way of making a network that timm takes, and the network."""
    refused: Exception | None = None
    for more in _candidates(name, size_hw):
        try:
            return {**more, **options}, _create(name, {**more, **options}, pooled=pooled)
        except TypeError as error:  # no such option
            refused = error
        except (AssertionError, NotImplementedError, ValueError) as error:
            refused = error
            break
    if "output_stride" in options:
        others = {key: value for key, value in options.items() if key != "output_stride"}
        _made(name, others, size_hw)  # raises where it is they that do not fit
        raise InputError(
            f"backbone {name!r}: timm cannot leave out its last stride; say remove_last_stride = false in the recipe"
        ) from refused
    raise InputError(f"backbone {name!r}: timm does not take these options {options}: {refused}") from refused


def _create(name: str, options: dict[str, Any], *, pooled: bool = False) -> nn.Module:
    import timm

    made: nn.Module
    if not pooled:
        try:
            made = timm.create_model(name, pretrained=False, num_classes=0, global_pool="", **options)
            return made
        except AssertionError:  # some families cannot do without their pooling, which features do not meet
            pass
    made = timm.create_model(name, pretrained=False, num_classes=0, **options)
    return made


def _features(name: str, skeleton: nn.Module, size_hw: tuple[int, int]) -> Features:
    """Look at the features of a network on the meta device."""
    passed: set[str] = set()

    def note(part: str) -> Any:
        return lambda *_: passed.add(part)

    hooks = [layer.register_forward_hook(note(path.split(".")[0])) for path, layer in skeleton.named_modules() if path]
    found = _tried(name, skeleton.eval().forward_features, size_hw)
    for hook in hooks:
        hook.remove()
    layout, channels = _layout(name, skeleton, found)
    idle = [
        part
        for part, layer in skeleton.named_children()
        if part not in passed and any(True for _ in layer.parameters())
    ]
    has_norm = "head" in idle and _keeps_shape(getattr(skeleton.head, "norm", None), found)
    left_out = tuple(part for part in idle if not (has_norm and part == "head"))
    prefix = int(getattr(skeleton, "num_prefix_tokens", 0)) if layout == "tokens" else 0
    return Features(layout, channels, prefix, has_norm, left_out)


def _tried(name: str, forward: Any, size_hw: tuple[int, int]) -> Any:
    try:
        with torch.no_grad():
            return forward(torch.empty(2, 3, *size_hw, device="meta"))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        told = "x".join(map(str, published_wh(name)))
        raise InputError(
            f"backbone {name!r}: does not take images of {size_hw[1]}x{size_hw[0]} ({why}); it was published for {told}"
        ) from error


def _layout(name: str, skeleton: nn.Module, found: Any) -> tuple[Layout, int]:
    if isinstance(found, Tensor) and found.ndim == 3:
        return "tokens", found.shape[2]
    if isinstance(found, Tensor) and found.ndim == 4:
        by_place = getattr(skeleton, "output_fmt", None) or (
            "NHWC" if found.shape[3] == skeleton.num_features != found.shape[1] else "NCHW"
        )
        return ("NHWC", found.shape[3]) if str(by_place).endswith("NHWC") else ("NCHW", found.shape[1])
    what = f"of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
    raise InputError(f"backbone {name!r}: gives no feature map and no tokens, but {what}; take another one")


def _keeps_shape(norm: nn.Module | None, found: Tensor) -> bool:
    """Whether a normalisation that has parameters can be applied to features at every place."""
    if norm is None or not any(True for _ in norm.parameters()):
        return False
    try:
        return bool(norm(found).shape == found.shape)
    except RuntimeError:
        return False


def _undo_dilation(backbone: nn.Module, name: str, options: dict[str, Any]) -> None:
    """Give convolutions the dilation and padding that they have in the plain network.

    timm trades the stride of ``output_stride=16`` for dilation; CGD only leaves the stride out.
    """
    with torch.device("meta"):
        plain = _create(name, options)
    own = dict(backbone.named_modules())
    for path, layer in plain.named_modules():
        there = own.get(path)
        if isinstance(layer, nn.Conv2d) and isinstance(there, nn.Conv2d) and layer.dilation != there.dilation:
            there.dilation, there.padding = layer.dilation, layer.padding
