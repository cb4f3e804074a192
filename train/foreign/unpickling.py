"""Reads files of torch.save with `weights_only=True` and a small list of classes, none of which runs code.

Beside tensors, plain containers and torch's own types, checkpoints often contain numbers and arrays of NumPy, options
(argparse.Namespace, OmegaConf, Lightning's AttributeDict), paths and times. Of these only datetime's classes are used.
In place of the others a stand-in is filled, so that neither their packages are needed nor any of their code runs.
"""

from __future__ import annotations

import datetime
import pickletools
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import numpy as np
import torch

from stageproof.runtime.system.regular_files import open_regular

_KINDS = "biufcUS"
"""Kinds of NumPy's types that are read: numbers and text, but no objects."""
_FOREIGN = {
    "argparse": ("Namespace",),
    "types": ("SimpleNamespace",),
    "omegaconf.base": ("ContainerMetadata", "Metadata"),
    "omegaconf.nodes": ("AnyNode", "StringNode", "IntegerNode", "FloatNode", "BooleanNode", "PathNode", "BytesNode"),
    "typing": ("Any",),
}
"""Module → classes in whose place `_Fields` is filled."""
_CONTAINERS = {"omegaconf.dictconfig": ("DictConfig",), "omegaconf.listconfig": ("ListConfig",)}
_MAPPINGS = (
    *("lightning.fabric.utilities.data.AttributeDict", "lightning_fabric.utilities.data.AttributeDict"),
    *("pytorch_lightning.utilities.parsing.AttributeDict", "lightning.pytorch.utilities.parsing.AttributeDict"),
)
"""Subclasses of dict that are read as OrderedDict, because torch fills no other mapping."""
_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
_BUILTINS = (dict, list, int, float, str, bool)
"""Types that OmegaConf's metadata refers to."""


class _Fields:
    """The attributes of an object whose class is not used."""

    def __init__(self, *_: object) -> None:
        pass

    def __new__(cls, *_: object) -> _Fields:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, Mapping):
            self.__dict__.update({str(name): value for name, value in state.items()})


class _Container(_Fields):
    """The attributes of a container of OmegaConf; its items are in `_content`."""


def _path(*parts: object) -> str:
    return "/".join(str(part) for part in parts).replace("//", "/")


def _default_dict(*_: object) -> dict[Any, Any]:
    return {}


class _NumpyType(_Fields):
    """A type of NumPy, of numbers or text."""

    def __init__(self, name: Any, *_: object) -> None:
        self.dtype = np.dtype(name)
        if self.dtype.kind not in _KINDS:
            raise UnpicklingError(f"Unsupported global: GLOBAL numpy.dtype({name!r}) is not allowed")

    def __setstate__(self, state: Any) -> None:
        self.dtype = self.dtype.newbyteorder({"<": "<", ">": ">"}.get(state[1], "="))


class _NumpyArray(_Fields):
    """An array of NumPy."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        self.value = np.frombuffer(content, kind.dtype).reshape(shape, order="F" if fortran else "C").copy()


def _number(kind: Any, content: Any) -> Any:
    return np.frombuffer(content, kind.dtype)[0]


def _allowed() -> list[Any]:
    """(object, name in the pickle) of everything that a checkpoint may contain beside what torch allows itself."""
    found: list[Any] = [(_NumpyType, "numpy.dtype"), (_NumpyArray, "numpy.ndarray")]
    for core in ("numpy.core", "numpy._core"):  # pickles of NumPy 1 and 2
        found += [(_number, f"{core}.multiarray.scalar"), (_NumpyArray, f"{core}.multiarray._reconstruct")]
    found += [datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone]
    found += [(_path, f"{module}.{name}") for module in ("pathlib", "pathlib._local") for name in _PATHS]
    found += [(_Fields, f"{module}.{name}") for module, names in _FOREIGN.items() for name in names]
    found += [(_Container, f"{module}.{name}") for module, names in _CONTAINERS.items() for name in names]
    found += [(OrderedDict, name) for name in _MAPPINGS]
    found += [(_default_dict, "collections.defaultdict"), *_BUILTINS]
    return found


def unpickled(path: Path) -> Any:
    """The content of a file of torch.save, with the stand-ins replaced by plain containers.

    Raises pickle.UnpicklingError for any other class or function, which is not called; and whatever torch raises for a
    damaged file.
    """
    # Passed as an open file, because torch.load depends on the suffix of a path.
    with torch.serialization.safe_globals(_allowed()), warnings.catch_warnings(), open_regular(path) as file:
        warnings.simplefilter("ignore", UserWarning)  # of other pickle protocols, which are reported as an error
        return _plain(torch.load(file, "cpu", weights_only=True), {})


def _plain(value: Any, seen: dict[int, Any]) -> Any:
    """`value` with dicts in place of stand-ins. seen: results by identity, because OmegaConf's nodes refer to their
    parents."""
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, _Container):
        seen[id(value)] = None
        return _plain(vars(value).get("_content"), seen)
    if isinstance(value, _NumpyArray):
        return vars(value).get("value")
    if isinstance(value, _NumpyType):
        return str(value.dtype)
    if isinstance(value, _Fields):
        seen[id(value)] = None
        fields = vars(value)
        return _plain(fields["_val"] if "_val" in fields else dict(fields), seen)
    if isinstance(value, dict):
        seen[id(value)] = result = type(value)()
        result.update({key: _plain(entry, seen) for key, entry in value.items()})
        return result
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        return type(value)(_plain(entry, seen) for entry in value) if type(value) in (list, tuple) else value
    return value


def classes_in(path: Path) -> tuple[list[str], bool]:
    """(classes and functions that the pickle would import and that are not allowed, in order; whether it contains a
    network, an nn.Module). Nothing is imported or run. ([], False) for a file that cannot be parsed."""
    names: list[str] = []
    module = False
    try:
        with open_regular(path) as file:
            for stream in _pickles(file):
                for operation, argument, _ in pickletools.genops(stream):
                    if operation.name in ("GLOBAL", "INST") and isinstance(argument, str):
                        names.append(argument.replace(" ", "."))
                    module = module or argument == "_parameters"
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError, IndexError, UnicodeDecodeError):
        pass
    allowed = {one[1] if isinstance(one, tuple) else f"{one.__module__}.{one.__qualname__}" for one in _allowed()}
    allowed |= {name.replace("builtins.", "__builtin__.") for name in allowed} | {"__builtin__.long"}
    return [name for name in dict.fromkeys(names) if not _of_torch(name) and name not in allowed], module


def _of_torch(name: str) -> bool:
    """Whether torch allows the name by itself."""
    module, _, last = name.rpartition(".")
    return (
        module in ("torch._utils", "torch._tensor", "torch.serialization")
        or (module == "torch" and (last.endswith("Storage") or last in ("Size", "device", "Tensor")))
        or (module == "torch" and isinstance(getattr(torch, last, None), torch.dtype))
        or name in ("collections.OrderedDict", "collections.Counter", "torch.nn.parameter.Parameter", "_codecs.encode")
        or name in ("__builtin__.set", "builtins.set", "torch.storage.UntypedStorage", "torch.storage.TypedStorage")
    )


def _pickles(file: BinaryIO) -> Iterator[Any]:
    """The pickles of a file of torch.save: `data.pkl` of an archive; before version 1.6, the first five of the file."""
    if not zipfile.is_zipfile(file):
        file.seek(0)
        for _ in range(5):
            yield file
        return
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if name.rpartition("/")[2] == "data.pkl":
                with archive.open(name) as entry:
                    yield entry.read()
