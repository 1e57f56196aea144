"""Checkpoints of others: their tensors, and nothing of what else they hold."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from harness.types import InputError


def read_tensors(path: Path) -> OrderedDict[str, Tensor]:
    """The tensors of a checkpoint by name, with the ``_metadata`` that torch keeps beside them (None without).

    Args:
        path: a safetensors file, a state dict, or a dict with one under ``state_dict`` or ``model``.

    Raises:
        InputError: the file is no such checkpoint.
    """
    loaded = _loaded(path)
    for key in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping):
        raise InputError(f"{path}: expected a state dict of tensors, got {type(loaded).__name__}")
    result = OrderedDict(
        (str(name).removeprefix("module."), value) for name, value in loaded.items() if isinstance(value, Tensor)
    )
    result._metadata = getattr(loaded, "_metadata", None)  # type: ignore[attr-defined]
    return result


def _loaded(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except Exception as error:  # the parser has an exception of its own, and OSError
            raise _unreadable(path, error) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        pass
    except Exception as error:  # what is no pickle can raise anything at all
        raise _unreadable(path, error) from error
    # mmdet's own checkpoints hold logs and configs beside the tensors: classes that torch refuses to load.
    tolerant = SimpleNamespace(
        __name__="tensors", Unpickler=_TensorsOnly, load=lambda f, **more: _TensorsOnly(f).load()
    )
    try:
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=tolerant)
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    lines = str(error).splitlines()  # torch goes on for a page
    why = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return InputError(f"{path}: cannot be read as a state dict of tensors: {why}")


class _Inert:
    """Stands for every object of a checkpoint that is no tensor; nothing of it is run."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __call__(self, *args: Any, **kwargs: Any) -> _Inert:
        return self

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None:
        """Forget it."""

    def extend(self, values: Any) -> None:
        """Forget them."""


class _TensorsOnly(pickle.Unpickler):
    """Makes tensors and ordered dicts, and nothing else."""

    def __init__(self, file: Any, **more: Any) -> None:
        super().__init__(file, encoding=more.get("encoding", "utf-8"))

    def find_class(self, module: str, name: str) -> Any:
        """The rebuilding functions of tensors; something inert for every other name."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) in (("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")):
            return getattr(torch._utils, name)
        if module == "torch" and (name.endswith("Storage") or isinstance(getattr(torch, name, None), torch.dtype)):
            return getattr(torch, name)
        return _Inert
