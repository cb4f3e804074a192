"""Class names as checkpoints and options spell them, and the label set that they belong to.

Does not import torch, because options are checked before it is imported.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stageproof.runtime.errors import InputError
from stageproof.runtime.labels import BUILT_IN, LABELS, LabelSet, label_set, recognise
from stageproof.runtime.text.hints import quoted

GIVE = "--labels " + " ".join(LABELS)
_NUMBERED = re.compile(r"(label|class|category|output|target|index|idx|stage|c|l)?[\s_-]*\d+", re.IGNORECASE)
_BEFORE = re.compile(r"\s*\d+\s*[_.):\s-]\s*([^\W\d].*)")


@dataclass(frozen=True)
class Given:
    """The classes that the options ``--labels``, ``--classes`` and ``--positive`` give."""

    labels: tuple[str, ...] = ()
    """Names in the order of the outputs; () if not given."""
    classes: LabelSet | None = None
    """The label set: with `labels`, of these; else of --classes. None if neither is given."""
    positive: tuple[str, ...] = ()
    """Positive classes as spelt; () if not given."""


NOTHING = Given()
"""No option is given."""


def unnumbered(names: Sequence[str]) -> list[str]:
    """The names without numbers before them, as in ``0_NonDemented``, if all have them."""
    parts = [_BEFORE.fullmatch(name) for name in names]
    return [part[1] for part in parts if part] if all(parts) else list(names)


def known_set(names: Sequence[str]) -> LabelSet | None:
    """The known label set of the names, as `recognise`, also of numbered ones."""
    return recognise(unnumbered(names))


def canonical(names: Sequence[str]) -> tuple[str | None, ...]:
    """The canonical name of each in the scale that knows all of them, else in the scale that knows it; None for a name
    that no scale knows."""
    names = unnumbered(names)
    whole = recognise(names)
    sets = [whole or recognise([name]) for name in names]
    return tuple(found.find(name) if found else None for found, name in zip(sets, names, strict=True))


def says_nothing(names: Sequence[str]) -> bool:
    """Whether the names only number the classes, such as ``0`` or ``LABEL_0``, and are not ratings (CDR)."""
    return known_set(names) is None and all(_NUMBERED.fullmatch(name.strip()) for name in names)


def set_of(names: Sequence[str], positive: Sequence[str] = ()) -> LabelSet:
    """The label set of names in the order of the outputs. Its clinical order is that of the scale that knows them; if
    there is none, the given order.

    Raises InputError as `label_set`, and if some of the names, but not all, belong to a known scale: one is misspelt,
    or the clinical order is unknown.
    """
    names = unnumbered(names)
    whole, known = recognise(names), canonical(names)
    if whole is None and any(known):
        unknown = [name for name, one in zip(names, known, strict=True) if one is None] or names
        raise InputError(
            f"unknown classes: {', '.join(map(repr, unknown))}, among classes of a known label set. If they are spelt "
            "right, give all classes in clinical order, the least severe first: --classes "
            f"{' '.join(quoted(name) for name in names)}"
        )
    if whole is None:
        return label_set(names, positive)
    return label_set([name for name in whole.names if name in {whole.find(one) for one in names}], positive)


def given_labels(labels: Sequence[str], classes: Sequence[str] = (), positive: Sequence[str] = ()) -> Given:
    """The classes that the options give; names may also be separated by commas.

    labels: names in the order of the outputs, in any known spelling. classes: in clinical order, or the name of a
    built-in set. positive: names of the positive classes.

    Raises InputError for names that are no label set, and for labels and classes that differ.
    """
    names, order, chosen = (unnumbered(_split(words)) for words in (labels, classes, positive))
    if labels and not names:
        raise InputError(f"--labels has 0 classes. Give the classes in the order of the outputs, such as {GIVE}")
    order = list(BUILT_IN.get(order[0].casefold(), order)) if len(order) == 1 else order
    if not names and not order:
        if chosen:
            raise InputError("--positive needs the classes: give --labels, or --classes if the checkpoint names them.")
        return NOTHING
    try:
        found = label_set(order, chosen) if order else set_of(names, chosen)
    except InputError as error:
        option = "--classes" if order else "--labels"
        raise InputError(f"{option} has {error}{_unquoted(names)}") from error
    if not names:
        return Given((), found, tuple(chosen))
    spelt = [found.find(name) for name in names]
    if unknown := [name for name, one in zip(names, spelt, strict=True) if one is None]:
        raise InputError(
            f"--labels has unknown classes: {', '.join(map(repr, unknown))}. Expected each class of --classes once: "
            f"{', '.join(found.names)}.{_unquoted(names)}"
        )
    if twice := sorted({str(one) for one in spelt if spelt.count(one) > 1}):
        raise InputError(f"--labels has {', '.join(twice)} twice: {', '.join(names)}. Expected each class once.")
    if len(spelt) != len(found):
        missing = ", ".join(name for name in found.names if name not in spelt)
        raise InputError(f"--labels has {len(spelt)} classes; {missing} is missing. Expected each class once.")
    return Given(tuple(str(one) for one in spelt), found, tuple(chosen))


def _split(words: Sequence[str]) -> list[str]:
    return [part.strip() for word in words for part in word.split(",") if part.strip()]


def _unquoted(names: Sequence[str]) -> str:
    """A hint if words of the names look like parts of names with spaces."""
    words = [name.casefold() for name in names]
    parted = len(set(words)) < len(words) or {"impairment", "demented", "dementia", "cdr"} & set(words)
    return " Quote names that contain spaces." if parted else ""
