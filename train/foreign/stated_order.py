"""Finds class orders in the metadata of a checkpoint, or in JSON files beside it.

Known keys are matched ignoring case, ``_`` and ``-``. A list of the classes of a known label set under any other key is
a hint: it is not used as the class order, but no other order is then assumed.
"""

from __future__ import annotations

import ast
import json
import numbers
import operator
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.labels import LABELS
from stageproof.train.foreign.class_names import canonical, known_set
from stageproof.train.foreign.class_order import Statement

_INDEX_OF = {
    *("classtoidx", "classtoindex", "classtoid", "classtoint", "class2idx", "class2index", "class2id", "class2int"),
    *("labeltoidx", "labeltoindex", "labeltoid", "labeltoint", "label2idx", "label2index", "label2id", "label2int"),
    *("nametoidx", "nametoindex", "nametoid", "name2idx", "name2index", "name2id", "classindices", "classidx"),
}
_CLASS_AT = {
    *("idxtoclass", "indextoclass", "idtoclass", "inttoclass", "idx2class", "index2class", "id2class", "int2class"),
    *("idxtolabel", "indextolabel", "idtolabel", "inttolabel", "idx2label", "index2label", "id2label", "int2label"),
    *("idxtoname", "indextoname", "idtoname", "idx2name", "index2name", "id2name"),
}
_LISTED = {
    *("classes", "classnames", "classlabels", "classlist", "classorder", "classmap", "classmapping", "classdict"),
    *("labels", "labelnames", "labelmap", "labelmapping", "labeldict", "labelsdict", "labelorder", "labelencoder"),
    *("names", "targetnames", "categories", "categorynames", "outputnames", "stagenames", "vocab"),
}
_DEPTH = 3
"""Depth to which nested dictionaries are searched, such as ``hyper_parameters`` → ``config`` → ``classes``."""
_MOST = 100
"""Maximum length of a list of classes: a longer list has the names of images."""


def stated(content: Mapping[str, Any], file: str) -> list[Statement]:
    """All class orders in `content` under known keys.

    content: all of a checkpoint except the tensors, or a JSON file. Values may be JSON as text, as in safetensors
    metadata. Raises CheckpointError for an invalid order: an index that is missing, duplicate or not an integer.
    """
    found = []
    for where, kind, value in _entries(content, file, "", _DEPTH):
        if kind in _INDEX_OF | _CLASS_AT | _LISTED and (names := _names(value, kind, where)):
            found.append(Statement(where, names))
    return found


def hints(content: Mapping[str, Any], file: str, count: int = len(LABELS)) -> list[Statement]:
    """All lists and mappings of `count` classes of a known label set, under any key."""
    found = []
    for where, _, value in _entries(content, file, "", _DEPTH):
        try:
            names = _names(value, "names", where)
        except CheckpointError:
            continue
        if len(names) == count and known_set(names) is not None:
            found.append(Statement(where, names))
    return found


def _entries(content: Mapping[str, Any], file: str, inside: str, depth: int) -> Iterator[tuple[str, str, Any]]:
    """(location, normalised key, value) of each entry, including those of nested dictionaries."""
    for key, entry in content.items():
        value = _plain(entry)
        yield f"{inside}{key} in {file}", re.sub(r"[^a-z0-9]", "", str(key).lower()), value
        if isinstance(value, Mapping) and depth > 1:
            yield from _entries(value, file, f"{inside}{key}.", depth - 1)


def _plain(value: Any) -> Any:
    """The parsed value of JSON text, or of a list or dictionary as Python prints it; any other value unchanged."""
    if not isinstance(value, str) or not value.strip().startswith(("[", "{", '"')):
        return value
    for parse in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return parse(value.strip())
    return value


def _names(value: Any, kind: str, where: str) -> tuple[str, ...]:
    """Class names in the order of the outputs; () if the value is something else, such as a number of classes."""
    if isinstance(value, str):
        parts = [part.strip() for part in re.split(r"[,;|\n]", value) if part.strip()]
        value = parts if len(parts) > 1 else value
    value = value.tolist() if isinstance(value, np.ndarray) and value.ndim == 1 else value
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(one, str) for one in value) and len(value) <= _MOST:
            return _distinct(tuple(value), where)
        pairs = all(
            isinstance(one, (list, tuple)) and len(one) == 2 and isinstance(one[0], (str, int)) for one in value
        )
        value = dict(value) if value and pairs and len(value) <= _MOST else value
    if isinstance(value, Mapping) and value:
        by_key, by_value = [_index(key) for key in value], [_index(one) for one in value.values()]
        numbered, counted = None not in by_key, None not in by_value
        if counted and (kind in _INDEX_OF or not numbered):
            return _ordered([str(key) for key in value], by_value, list(value.values()), where)
        if numbered and all(isinstance(one, str) for one in value.values()):
            return _ordered([str(one) for one in value.values()], by_key, list(value), where)
        if any(isinstance(one, (Mapping, list)) for one in value.values()):
            return ()  # the order may be in a nested value
    if kind in _LISTED or value is None or (isinstance(value, (Mapping, list, tuple)) and not value):
        return ()
    raise CheckpointError(f"{where} is {_short(value)}, expected class names with their indices. {_hint()}")


def _index(value: Any) -> int | None:
    """`value` as an int, from an integer of Python, NumPy or torch, 2.0 or "2"; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"\s*\d{1,9}\s*", value) else None
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return int(float(value)) if float(value).is_integer() else None
    try:
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def _ordered(names: list[str], indices: list[int | None], spelt: list[Any], where: str) -> tuple[str, ...]:
    if sorted(-1 if index is None else index for index in indices) != list(range(len(names))):
        raise CheckpointError(
            f"{where} has the indices {_short(spelt)} for {', '.join(names[:8])}; expected each integer from 0 to "
            f"{len(names) - 1} once. {_hint()}"
        )
    by_index = dict(zip(indices, names, strict=True))
    return _distinct(tuple(by_index[index] for index in range(len(names))), where)


def _distinct(names: tuple[str, ...], where: str) -> tuple[str, ...]:
    meant = [label or name for label, name in zip(canonical(names), names, strict=True)]
    if twice := sorted({name for name in meant if meant.count(name) > 1}):
        raise CheckpointError(f"{where} has {', '.join(twice)} twice: {', '.join(names[:8])}. {_hint()}")
    return names


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _hint() -> str:
    return "Correct the class order in the checkpoint, or remove it there and give the order with --labels."
