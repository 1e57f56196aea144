"""What a detector begins with: checkpoints found by name, verified, and taken over tensor by tensor.

``coco`` and ``imagenet`` name files that mmdet and torchvision publish. Their addresses come from the
installed packages (mmdet's ``metafile.yml``, the config's ``init_cfg``, mmengine's and torchvision's
own lists), and the files lie where torch keeps its downloads. Such a file's name ends in the first
digits of its SHA-256, which are compared whenever it is used.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from harness.detection.configs import load_model_config, merged, zoo_address
from harness.detection.recipes import DetectorScale
from harness.training.checkpoints import read_tensors
from harness.training.downloads import fetched
from harness.types import InputError

if TYPE_CHECKING:
    from harness.detection.bridge import Network

NAMED = ("coco", "imagenet")
"""What may be asked for instead of a path."""

_OF_THE_SAME_SHAPE = {"frozen_stages", "norm_eval", "with_cp", "init_cfg", "zero_init_residual"}
"""Settings of a backbone that leave its tensors as they are."""

_UNCOUNTED = "num_batches_tracked"


def find(asked: str, scale: DetectorScale) -> Path:
    """The file of the initial weights that were asked for, fetched if it is published and not there yet.

    Args:
        asked: ``coco``, ``imagenet`` or a path.
        scale: the recipe's settings.

    Raises:
        InputError: there is no such file, nothing is published for this recipe, or the file cannot be fetched or
            is damaged.
    """
    if asked in NAMED:
        return fetched(address_of(asked, scale))
    path = Path(asked)
    if not path.is_file():
        raise InputError(
            f"{path}: there are no initial weights; give an mmdet checkpoint (.pth), a torchvision backbone's state "
            f"dict, one of {', '.join(NAMED)}, or none to begin with random weights"
        )
    return path


def address_of(asked: str, scale: DetectorScale) -> str:
    """Where the weights of that name are published for a recipe.

    Args:
        asked: ``coco``, the checkpoint of mmdet's model zoo for the recipe's config, or ``imagenet``, the backbone
            that the config's ``init_cfg`` names.
        scale: the recipe's settings.

    Raises:
        InputError: nothing is published for it.
    """
    advice = "give a path with --init-from, or none to begin with random weights"
    what = f"config {scale.config}" if scale.config else "the given config"
    changed = set(scale.model.get("backbone", {})) - _OF_THE_SAME_SHAPE if scale.config else set()
    own = scale.coco_weights if asked == "coco" else "init_cfg" in scale.model.get("backbone", {})
    if changed and not own:
        raise InputError(
            f"--init-from {asked}: this recipe changes the backbone of {what}, so nothing fits it; {advice}"
        )
    if asked == "coco":
        address = scale.coco_weights or (zoo_address(scale.config) if scale.config else None)
        if address is None:
            raise InputError(
                f"--init-from coco: mmdet's model zoo has no checkpoint for {what}; "
                f"--init-from imagenet begins with its backbone, or {advice}"
            )
        return address
    named = _backbone_checkpoint(merged(load_model_config(scale.config), scale.model))
    if named is None:
        raise InputError(f"--init-from imagenet: {what} names no weights for its backbone; {advice}")
    return _resolved(named)


def _backbone_checkpoint(model: Mapping[str, Any]) -> str | None:
    """What the backbone's ``init_cfg`` (in old configs ``pretrained``) begins with."""
    for place in (model.get("backbone", {}), model):
        init = place.get("init_cfg")
        for one in init if isinstance(init, list | tuple) else [init]:
            if isinstance(one, Mapping) and one.get("type") == "Pretrained":
                return str(one["checkpoint"])
        if isinstance(place.get("pretrained"), str):
            return str(place["pretrained"])
    return None


def _resolved(named: str) -> str:
    """The address or path behind torchvision:// and open-mmlab://."""
    from mmengine.runner.checkpoint import get_deprecated_model_names, get_external_models, get_torchvision_models

    kind, _, name = named.partition("://")
    if kind in ("torchvision", "modelzoo"):
        published = get_torchvision_models()
    elif kind in ("open-mmlab", "openmmlab"):
        published = get_external_models()
        name = get_deprecated_model_names().get(name, name)
    else:
        return named
    if name not in published:
        raise InputError(f"--init-from imagenet: the config asks for {named}, which is not published; give a path")
    return str(published[name])


def take_over(network: Network, path: Path) -> tuple[str, ...]:
    """Lay a checkpoint's tensors over a network's, where name and shape agree.

    Names of older versions of mmdet are converted by the modules themselves. The class layers of other data sets
    have other shapes; they stay as they were drawn.

    Args:
        network: whose weights to replace.
        path: an mmdet checkpoint, or a backbone's state dict.

    Returns:
        Names of the network's tensors that stay as they were: absent in the file, or of another shape.

    Raises:
        InputError: the file cannot be read, or its backbone is of another architecture.
    """
    given = read_tensors(path)
    metadata = getattr(given, "_metadata", None) or {}
    if not any(name.startswith("backbone.") for name in given):
        given, metadata = _of_a_backbone(network.model.backbone, given), {}
    own = network.model.state_dict()
    _load(network.model, given, metadata)
    fitting = {name for name, value in given.items() if name in own and own[name].shape == value.shape}
    _refuse_another_backbone(path, own, given, fitting)
    return tuple(name for name in own if name not in fitting and not name.endswith(_UNCOUNTED))


def _of_a_backbone(backbone: nn.Module, given: OrderedDict[str, Tensor]) -> OrderedDict[str, Tensor]:
    """A bare backbone's tensors under the detector's names; transformers are published under their authors' names."""
    from mmdet.models.backbones.pvt import PyramidVisionTransformer, pvt_convert
    from mmdet.models.backbones.swin import SwinTransformer, swin_converter

    if isinstance(backbone, SwinTransformer) and any(name.startswith("layers.") for name in given):
        return OrderedDict(swin_converter(given))
    if isinstance(backbone, PyramidVisionTransformer) and any(name.startswith("block1.") for name in given):
        given = pvt_convert(given)
    return OrderedDict((f"backbone.{name}", value) for name, value in given.items())


def _load(module: nn.Module, given: dict[str, Tensor], metadata: Mapping[str, Any], prefix: str = "") -> None:
    """What `torch.nn.Module.load_state_dict` does, but tensors of other shapes are left out, not refused."""
    missing: list[str] = []
    unexpected: list[str] = []
    errors: list[str] = []
    module._load_from_state_dict(given, prefix, metadata.get(prefix[:-1], {}), False, missing, unexpected, errors)
    for name, child in module.named_children():
        _load(child, given, metadata, f"{prefix}{name}.")


def _refuse_another_backbone(
    path: Path, own: Mapping[str, Tensor], given: Mapping[str, Tensor], fitting: set[str]
) -> None:
    wanted = {name for name in own if name.startswith("backbone.") and not name.endswith(_UNCOUNTED)}
    parts = {name.split(".")[1] for name in wanted}
    strange = [
        name
        for name in given
        if name.startswith("backbone.") and name.endswith(".weight") and name not in own and name.split(".")[1] in parts
    ]
    # What a config adds (deformable offsets inside a block, Swin's last norms beside them) is in no ImageNet file.
    begun = {_block(name) for name in wanted & fitting}
    absent = [name for name in wanted - fitting if name in given or _block(name) not in begun | {""}]
    if absent or strange or not begun:
        more = f", and it has {strange[0]}, which the recipe's has not" if strange else ""
        raise InputError(
            f"{path}: fits {len(wanted & fitting)} of the backbone's {len(wanted)} tensors{more}; these weights are of "
            "another architecture than the recipe's"
        )


def _block(name: str) -> str:
    """``backbone.layer3.6`` of a tensor inside a block of a stage; empty for one that is in no stage."""
    parts = name.split(".")
    return ".".join(parts[:3]) if len(parts) > 3 else ""
