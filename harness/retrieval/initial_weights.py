"""What a retrieval model begins with: timm's published weights, random ones, a file, or another model trained here.

Published files lie where torch keeps its downloads, or in Hugging Face's own cache. Nothing in a file is run.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from harness.artifacts import file_sha256
from harness.retrieval.settings import Frozen
from harness.training.cards import CARD_FILE, WEIGHTS_FILE
from harness.training.checkpoints import read_tensors
from harness.training.downloads import by_hand, downloads_folder, fetched
from harness.types import InputError

if TYPE_CHECKING:
    from harness.retrieval.cgd import CGD
    from harness.retrieval.encoders import Encoder

NAMED = ("imagenet", "none")
"""What may be asked for instead of a path."""

_UNCOUNTED = "num_batches_tracked"
_WRAPPERS = ("_orig_mod.", "network.")
"""What torch.compile and the training loop put before names."""


class InitialWeights(Frozen):
    """What a training began with.

    Attributes:
        what: ``none``, ``imagenet`` with the file's published name, or the file's or folder's name.
        sha256: of the file; None for ``none``.
        left_as_drawn: the network's parameters that the file did not give, such as the classifier's.
    """

    what: str
    sha256: str | None = None
    left_as_drawn: tuple[str, ...] = ()


def find(asked: str, backbone: str) -> Path | None:
    """The file of the initial weights that were asked for, fetched if it is published and not there yet.

    Args:
        asked: ``imagenet``, ``none``, or a path: a file of weights, or the folder of a model trained here.
        backbone: timm's name of the network.

    Returns:
        The file; None for ``none``.

    Raises:
        InputError: there is no such file, nothing is published for this backbone, or the file cannot be fetched.
    """
    if asked == "none":
        return None
    if asked == "imagenet":
        return _published_file(backbone)
    path = Path(asked)
    if path.is_dir():
        if not (path / CARD_FILE).is_file() or not (path / WEIGHTS_FILE).is_file():
            raise InputError(
                f"{path}: expected the folder of a trained retrieval model, with {CARD_FILE} and {WEIGHTS_FILE}; "
                "an interrupted training's weights are in its last.ckpt, which may be given by its path"
            )
        return path / WEIGHTS_FILE
    if not path.is_file():
        raise InputError(
            f"{path}: there are no initial weights; give a file of timm's (.safetensors, .pth), the folder of a model "
            f"that was trained here, or one of {', '.join(NAMED)}"
        )
    return path


def initialise(network: CGD | Encoder, asked: str) -> InitialWeights:
    """Lay the initial weights that were asked for over a network's.

    The backbone's have to fit; descriptors' layers and the classifier are taken over where they have the same shape.

    Args:
        network: whose weights to replace.
        asked: as for `find`.

    Returns:
        What it begins with now.

    Raises:
        InputError: as for `find`, or the file cannot be read, or is of another backbone.
    """
    path = find(asked, network.backbone_name)
    if path is None:
        return InitialWeights(what="none")
    name = path.parent.name if Path(asked).is_dir() else path.name
    return InitialWeights(
        what=f"imagenet ({name})" if asked == "imagenet" else name,
        sha256=file_sha256(path),
        left_as_drawn=take_over(network, path),
    )


def take_over(network: CGD | Encoder, path: Path) -> tuple[str, ...]:
    """Lay a file's tensors over a network's, where name and shape agree.

    Args:
        network: whose weights to replace.
        path: a timm checkpoint of the backbone, or a whole retrieval model's weights.

    Returns:
        Names of the network's parameters that stay as they were drawn; none of the backbone.

    Raises:
        InputError: the file cannot be read, or its backbone is of another architecture.
    """
    given = {_unwrapped(name): value for name, value in read_tensors(path).items()}
    if not any(name.startswith("backbone.") for name in given):
        given = {f"backbone.{name}": value for name, value in _of_backbone(network.backbone, given, path).items()}
    own = network.state_dict()
    fitting = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    _refuse_another_backbone(path, network, own, given, fitting)
    network.load_state_dict(fitting, strict=False)
    return tuple(name for name, _ in network.named_parameters() if name not in fitting)


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def _of_backbone(backbone: nn.Module, given: dict[str, Tensor], path: Path) -> Mapping[str, Tensor]:
    """A backbone's tensors under timm's names and in this network's shapes: authors name theirs otherwise.

    Every family of timm brings a function for that, which also makes positions fit images of another size.
    """
    own = backbone.state_dict()
    if all(name in given and given[name].shape == value.shape for name, value in own.items()):
        return given
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return given
    try:
        converted: Mapping[str, Tensor] = convert(OrderedDict(given), backbone)
    except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not the weights of this backbone: its names are not those of {type(backbone).__name__} "
            f"({type(error).__name__}: {error})"
        ) from error
    return converted


def _refuse_another_backbone(
    path: Path,
    network: CGD | Encoder,
    own: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    fitting: Mapping[str, Tensor],
) -> None:
    classifier = network.backbone.pretrained_cfg.get("classifier") or ()  # type: ignore[union-attr, operator]
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    heads = tuple(f"backbone.{part}." for part in (*heads, *network.left_out, "fc", "classifier", "head"))
    wanted = [name for name in own if name.startswith("backbone.") and not name.endswith(_UNCOUNTED)]
    missing = [name for name in wanted if name not in given]
    shaped = [name for name in wanted if name in given and name not in fitting]
    strange = [
        name for name in given if name.startswith("backbone.") and name not in own and not name.startswith(heads)
    ]
    if not (missing or shaped or strange):
        return
    found = []
    if missing:
        found.append(f"{len(missing)} of its {len(wanted)} tensors are missing (first {missing[0]})")
    if shaped:
        first = shaped[0]
        shapes = f"{tuple(given[first].shape)} instead of {tuple(own[first].shape)}"
        found.append(f"{len(shaped)} have another shape (first {first}: {shapes})")
    if strange:
        found.append(f"{len(strange)} are unknown (first {strange[0]})")
    raise InputError(f"{path}: not the weights of backbone {network.backbone_name}: {'; '.join(found)}")


def _published_file(backbone: str) -> Path:
    """timm's published weights: as put into torch's folder by hand, in Hugging Face's cache, or fetched."""
    import timm
    from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache

    told: dict[str, Any] = config.to_dict() if (config := timm.get_pretrained_cfg(backbone)) else {}
    repository, address = str(told.get("hf_hub_id") or ""), str(told.get("url") or "")
    if not repository and not address:
        raise InputError(
            f"--init-from imagenet: timm {timm.__version__} publishes no weights for {backbone}; give a path, or none"
        )
    if not repository:
        return fetched(address)
    file = str(told.get("hf_hub_filename") or "model.safetensors")
    address = hf_hub_url(repository, file)
    name = repository.rsplit("/", 1)[-1] + Path(file).suffix
    path = downloads_folder() / name
    if path.is_file():
        return path
    cached = try_to_load_from_cache(repository, file)
    if isinstance(cached, str):
        return Path(cached)
    if constants.HF_HUB_OFFLINE:
        raise InputError(f"{name}: cannot be fetched (HF_HUB_OFFLINE is set); {by_hand(address, path)}")
    return fetched(address, name)
