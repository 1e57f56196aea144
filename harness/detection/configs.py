"""mmdet's configs: those inside its wheel and those of users, read into plain values."""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.types import InputError


def configs_folder() -> Path:
    """Where the mmdet wheel keeps its configs and the lists of its model zoo."""
    spec = importlib.util.find_spec("mmdet")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / ".mim" / "configs"


def config_path(config: str) -> Path:
    """The file of a config.

    Args:
        config: path of a file, or a path below ``mmdet/.mim/configs``, such as ``atss/atss_r101_fpn_1x_coco.py``.

    Raises:
        InputError: there is no such file; the message lists what the wheel has beside it.
    """
    folder = configs_folder()
    for path in (folder / config, Path(config)):
        if path.is_file():
            return path
    parent = (folder / config).parent
    neighbours = sorted(p.name for p in parent.glob("*.py")) if parent != folder else []
    told = (
        f"{parent.name} holds {', '.join(neighbours)}"
        if neighbours
        else "its configs have names such as atss/atss_r50_fpn_1x_coco.py"
    )
    raise InputError(f"config {config!r}: there is no such file here, and none inside mmdet's wheel; {told}")


def read_config(path: Path) -> dict[str, Any]:
    """All values of a config file, its bases resolved.

    Configs are programs, and reading one runs it.

    Args:
        path: a config of mmdet 3, which may name bases as ``mmdet::atss/atss_r50_fpn_1x_coco.py``.

    Raises:
        InputError: the file cannot be read, or has no ``model``.
    """
    from mmengine.config import Config

    try:
        values = Config.fromfile(str(path)).to_dict()
    except Exception as error:  # a config is a program of the user's, which may raise anything
        why = str(error).strip().splitlines()
        raise InputError(
            f"{path}: cannot be read as an mmdet config: {type(error).__name__}: {why[0] if why else 'no reason given'}"
        ) from error
    if not isinstance(values.get("model"), dict) or "type" not in values["model"]:
        raise InputError(f"{path}: expected an mmdet config with a 'model' that has a 'type', found none")
    return dict(values)


def load_model_config(config: str) -> dict[str, Any]:
    """The ``model`` part of a config, with its bases resolved.

    Args:
        config: as `config_path` takes it; empty for a recipe whose own ``model`` is the whole of it.

    Raises:
        InputError: there is no such config, or it cannot be read.
    """
    return {} if config == "" else dict(read_config(config_path(config))["model"])


def zoo_address(config: str) -> str | None:
    """Where mmdet's model zoo has the checkpoint of a config; None without.

    Args:
        config: path inside the mmdet wheel; its folder's ``metafile.yml`` lists the checkpoints.
    """
    from mmengine.fileio import load

    metafile = configs_folder() / Path(config).parent / "metafile.yml"
    if not metafile.is_file():
        return None
    listed = load(str(metafile))
    models = listed.get("Models", []) if isinstance(listed, dict) else listed
    found = [one.get("Weights") for one in models if one.get("Config") == f"configs/{config}"]
    return str(found[0]) if found and found[0] else None


def merged(base: Any, changes: Any) -> Any:
    """A config with changes laid over it.

    Dicts merge key by key; a dict over a list of dicts changes every one of them (the three
    stages of a cascade); a dict with ``_delete_`` replaces; everything else replaces.
    """
    if isinstance(changes, Mapping):
        if isinstance(base, list | tuple) and base and all(isinstance(part, Mapping) for part in base):
            return [merged(part, changes) for part in base]
        fresh = bool(changes.get("_delete_", False)) or not isinstance(base, Mapping)
        result = {} if fresh else dict(base)
        for key, change in changes.items():
            if key != "_delete_":
                result[key] = merged(result.get(key), change)
        return result
    return copy.deepcopy(changes)


TUPLE = "_tuple_"
"""Key of a dict that stands for a tuple: JSON has none, and some of mmdet's networks refuse a list."""


def plain(node: Any, where: str) -> Any:
    """A part of a config as JSON has it, so that a card can hold it and reads back the same.

    Args:
        node: the part.
        where: what it is, for messages.

    Raises:
        InputError: it holds something that JSON cannot express.
    """
    if isinstance(node, Mapping):
        strange = [key for key in node if not isinstance(key, str)]
        if strange:
            raise InputError(f"{where}: the key {strange[0]!r} is no text, so a card cannot hold it")
        return {key: plain(value, f"{where}.{key}") for key, value in node.items()}
    if isinstance(node, list | tuple):
        parts = [plain(value, f"{where}[{place}]") for place, value in enumerate(node)]
        return {TUPLE: parts} if isinstance(node, tuple) else parts
    if node is None or isinstance(node, str | bool | int) or (isinstance(node, float) and math.isfinite(node)):
        return node
    raise InputError(f"{where}: expected a number, a text, a list or a dict, got {type(node).__name__} {node!r}")


def from_plain(node: Any) -> Any:
    """The tuples of `plain` put back."""
    if isinstance(node, Mapping):
        if set(node) == {TUPLE}:
            return tuple(from_plain(value) for value in node[TUPLE])
        return {key: from_plain(value) for key, value in node.items()}
    return [from_plain(value) for value in node] if isinstance(node, list) else node
