"""The order of a checkpoint's classes: read from all that states it, compared, and never guessed in silence.

An output of a network is a number; which class it stands for is known only where somebody wrote it down. What was
written down is a `Statement`: in the checkpoint, in a file beside it (`export.side_files`), or in `--labels`. All of
them must agree, or nothing is exported. Where there is none, the order is that of torchvision's ImageFolder,
alphabetical, and is called assumed everywhere.

Imports neither torch nor numpy: options are checked before those are.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.errors import CheckpointError, InputError
from runtime.labels import ALPHABETICAL, ASSUMED, LABELS, canonical_label

_INDEX_OF = {
    *("classtoidx", "classtoindex", "classtoid", "class2idx", "class2index", "class2id", "classindices", "classidx"),
    *("labeltoidx", "labeltoindex", "labeltoid", "label2idx", "label2index", "label2id", "nametoidx", "name2idx"),
}
_CLASS_AT = {
    *("idxtoclass", "indextoclass", "idtoclass", "idx2class", "index2class", "id2class"),
    *("idxtolabel", "indextolabel", "idtolabel", "idx2label", "index2label", "id2label", "idxtoname", "idx2name"),
}
_LISTED = {
    *(
        "classes",
        "classnames",
        "classlabels",
        "classlist",
        "classorder",
        "labels",
        "labelnames",
        "labelmap",
        "classmap",
    ),
    *("labelorder", "targetnames", "categories", "categorynames", "outputnames"),
}
_DEPTH = 3
"""Dictionaries inside dictionaries that are looked into, such as ``hyper_parameters`` → ``config`` → ``classes``."""
_MOST = 100
"""A longer list of names is one of images."""
_GIVE = "--labels " + " ".join(LABELS)


@dataclass(frozen=True)
class Statement:
    """An order of classes that somebody wrote down."""

    where: str
    """For people, such as ``class_to_idx in model.pth``."""
    names: tuple[str, ...]
    """As they are spelt there, in the order of the outputs."""

    @property
    def labels(self) -> tuple[str | None, ...]:
        """The canonical name of each; None for what is no class known here."""
        return tuple(canonical_label(name) for name in self.names)

    def __str__(self) -> str:
        return f"{self.where}: {', '.join(label or repr(n) for label, n in zip(self.labels, self.names, strict=True))}"


@dataclass(frozen=True)
class ClassOrder:
    """What each output of the network stands for, and who says so."""

    labels: tuple[str, ...]
    """Canonical names in the order of the outputs."""
    origin: str | None
    """One of `runtime.labels.LABELS_FROM`; None where a bundle of version 0.1 did not record it."""
    where: str
    """For people: the file and key, or the option."""

    def __str__(self) -> str:
        names = ", ".join(self.labels)
        if self.origin == ASSUMED:
            return (
                f"class order {ASSUMED}: {names}. {self.where}. If the network was trained in another order, every "
                f"answer is a wrong class: check it, or give it, such as {_GIVE}"
            )
        return f"class order: {names} ({self.where})"


def given_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The canonical names that `--labels` means, in its order; () for none given.

    Takes any spelling that `runtime.labels.canonical_label` knows, also all in one word with commas between. Raises
    InputError unless every class is named exactly once.
    """
    names = [part.strip() for name in labels for part in name.split(",") if part.strip()]
    if not names and not labels:
        return ()
    found = [canonical_label(name) for name in names]
    unknown = [name for name, label in zip(names, found, strict=True) if label is None]
    expected = f"Expected each of {', '.join(LABELS)} once, in any common spelling, in the order of the outputs."
    if unknown:
        quote = " Put names of several words in quotes." if len(names) > len(LABELS) else ""
        raise InputError(f"--labels names {', '.join(map(repr, unknown))}, which is no class here. {expected}{quote}")
    if twice := sorted({str(label) for label in found if found.count(label) > 1}):
        raise InputError(f"--labels names {', '.join(twice)} twice: {', '.join(map(str, found))}. {expected}")
    if len(found) != len(LABELS):
        missing = ", ".join(label for label in LABELS if label not in found)
        raise InputError(f"--labels names {len(found)} classes and leaves out {missing}. {expected}")
    return tuple(str(label) for label in found)


def stated(content: Mapping[str, Any], file: str) -> list[Statement]:
    """Every order of classes that a checkpoint, or the JSON beside it, states under a key that means one.

    content: all but the tensors. Values may be JSON in text, as safetensors keeps them. Raises CheckpointError for an
    order that cannot be one: an index left out, given twice, or no whole number.
    """
    return _stated(content, file, "", _DEPTH)


def _stated(content: Mapping[str, Any], file: str, inside: str, depth: int) -> list[Statement]:
    found = []
    for key, value in content.items():
        where = f"{inside}{key} in {file}"
        kind = re.sub(r"[^a-z0-9]", "", str(key).lower())
        if kind in _INDEX_OF | _CLASS_AT | _LISTED:
            names = _names(_plain(value), kind, where)
            if names:
                found.append(Statement(where, names))
                continue
        inner = _plain(value)
        if isinstance(inner, Mapping) and depth > 1:
            found += _stated(inner, file, f"{inside}{key}.", depth - 1)
    return found


def _plain(value: Any) -> Any:
    """What a text spells, where it is JSON; any other value as it is."""
    if not isinstance(value, str) or not value.strip().startswith(("[", "{", '"')):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _names(value: Any, kind: str, where: str) -> tuple[str, ...]:
    """The names in the order of the outputs; () where the value is something else, such as a number of classes."""
    if isinstance(value, str):
        value = [part.strip() for part in re.split(r"[,;|\n]", value) if part.strip()]
        value = value if len(value) > 1 else []
    if isinstance(value, (list, tuple)):
        # Else labels of training images, weights of classes, …
        names = all(isinstance(one, str) for one in value) and len(value) <= _MOST
        return _distinct(tuple(value), where) if names else ()
    if not isinstance(value, Mapping) or not value:
        return ()
    by_key, by_value = [_index(key) for key in value], [_index(one) for one in value.values()]
    keys_count, values_count = None not in by_key, None not in by_value
    if values_count and (kind in _INDEX_OF or not keys_count):
        return _ordered([str(key) for key in value], by_value, list(value.values()), where)
    if keys_count and all(isinstance(one, str) for one in value.values()):
        return _ordered([str(one) for one in value.values()], by_key, list(value), where)
    if kind in _LISTED or any(isinstance(one, (Mapping, list)) for one in value.values()):
        return ()
    raise CheckpointError(f"{where} is {_short(dict(value))}, expected a class name and its index each. {_hint()}")


def _index(value: Any) -> int | None:
    """A whole number, also NumPy's, a tensor's, 2.0 or "2"; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"\s*\d{1,9}\s*", value) else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    try:
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def _ordered(names: list[str], indices: list[int | None], spelt: list[Any], where: str) -> tuple[str, ...]:
    if sorted(-1 if index is None else index for index in indices) != list(range(len(names))):
        raise CheckpointError(
            f"{where} has the indices {_short(spelt)} for {', '.join(names[:8])}; expected the whole numbers 0 to "
            f"{len(names) - 1}, each once. {_hint()}"
        )
    by_index = dict(zip(indices, names, strict=True))
    return _distinct(tuple(by_index[index] for index in range(len(names))), where)


def _distinct(names: tuple[str, ...], where: str) -> tuple[str, ...]:
    meant = [canonical_label(name) or name for name in names]
    if twice := sorted({name for name in meant if meant.count(name) > 1}):
        raise CheckpointError(f"{where} names {', '.join(twice)} twice: {', '.join(names[:8])}. {_hint()}")
    return names


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _hint() -> str:
    return "Save the checkpoint again with an order that is right, or without one and say it with --labels."


def decide(
    statements: Sequence[Statement], given: Sequence[str], file: str, count: int = len(LABELS), option: str = "--labels"
) -> ClassOrder:
    """The one order that all statements agree on.

    given: canonical names that the user, or a bundle, gives; `option` is what to call them; () for none.
    count: outputs of the network.

    Raises CheckpointError, or InputError where what was given is part of it, showing both orders, when two disagree;
    CheckpointError too for another number of classes than outputs, and for names that are no class here unless `given`
    says what they mean.
    """
    for one in statements:
        if len(one.names) != count:
            raise CheckpointError(
                f"{one.where} names {len(one.names)} classes ({', '.join(one.names[:8])}), and the network of {file} "
                f"has {count} outputs. One of them is of another network: correct or remove what is wrong."
            )
    for at, one in enumerate(statements):
        for other in statements[at + 1 :]:
            if not _agree(one.labels, other.labels):
                raise CheckpointError(_contradiction(str(one), str(other), file))
    if given:
        for one in statements:
            if not _agree(one.labels, tuple(given)):
                raise InputError(_contradiction(str(one), f"{option}: {', '.join(given)}", file))
    known = next((one for one in statements if None not in one.labels), None)
    if known:
        return ClassOrder(tuple(str(label) for label in known.labels), "checkpoint", f"from {known.where}")
    if given:
        return ClassOrder(tuple(given), "option", f"from {option}")
    if statements:
        one = statements[0]
        raise CheckpointError(
            f"{one.where} calls its classes {', '.join(map(repr, one.names))}, which does not say what they are: "
            f"expected {', '.join(LABELS)}, in any common spelling. Give them in the order of the outputs, such as "
            f"{_GIVE}"
        )
    return ClassOrder(ALPHABETICAL, ASSUMED, f"{file} does not state it, nor does a file beside it")


def _agree(one: Sequence[str | None], other: Sequence[str | None]) -> bool:
    """Whether no output is known to be two classes, and no class to be two outputs."""
    same = all(a == b for a, b in zip(one, other, strict=True) if a is not None and b is not None)
    both = [a or b for a, b in zip(one, other, strict=True)]
    known = [label for label in both if label is not None]
    return same and len(set(known)) == len(known)


def _contradiction(one: str, other: str, file: str) -> str:
    return (
        f"The order of the classes of {file} is stated twice, and not alike:\n  {one}\n  {other}\nNothing was built: "
        "in the wrong order every answer is a wrong class. Find out which the network was trained with, and correct "
        "or remove the other."
    )
