"""The class order of a checkpoint: which class each output of the network is.

A `Statement` of the class order may be in the checkpoint (`train.foreign.stated_order`), in a file beside it
(`train.foreign.side_files`) or in `--labels`. All statements must agree, otherwise nothing is exported. Without any
statement, alphabetical order is assumed, as torchvision's ImageFolder uses, and reported as assumed.

Does not import torch or NumPy, because options are checked before these are imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stageproof.runtime.errors import CheckpointError, InputError
from stageproof.runtime.labels import ALPHABETICAL, ASSUMED, LABELS, LabelSet, canonical_label, label_set

_GIVE = "--labels " + " ".join(LABELS)


@dataclass(frozen=True)
class Statement:
    """A class order found in a file or option."""

    where: str
    """Description of its source, such as ``class_to_idx in model.pth``."""
    names: tuple[str, ...]
    """Class names as spelt there, in the order of the outputs."""

    @property
    def labels(self) -> tuple[str | None, ...]:
        """The canonical name of each; None for a name that is not one of LABELS in any known spelling."""
        return tuple(canonical_label(name) for name in self.names)

    def __str__(self) -> str:
        return f"{self.where}: {', '.join(label or repr(n) for label, n in zip(self.labels, self.names, strict=True))}"


@dataclass(frozen=True)
class ClassOrder:
    """The class of each output of the network, and the source of this information."""

    labels: tuple[str, ...]
    """Canonical names in the order of the outputs."""
    origin: str | None
    """One of `runtime.labels.LABELS_FROM`; None where a bundle of version 0.1 did not record it."""
    where: str
    """Description of the source: file and key, or option."""

    @property
    def classes(self) -> LabelSet:
        """The label set."""
        return label_set([stage for stage in LABELS if stage in self.labels])

    def __str__(self) -> str:
        names = ", ".join(self.labels)
        if self.origin == ASSUMED:
            return (
                f"class order {ASSUMED}: {names}. {self.where}. If the network was trained with another order, "
                f"predictions are wrong. Check the order, or give it, such as {_GIVE}"
            )
        return f"class order: {names} ({self.where})"


def given_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The canonical names of the classes in `--labels`, in the given order; () if not given.

    Accepts the spellings of `runtime.labels.canonical_label`, also as one argument separated by commas. Raises
    InputError unless each class is given exactly once.
    """
    names = [part.strip() for name in labels for part in name.split(",") if part.strip()]
    if not names and not labels:
        return ()
    found = [canonical_label(name) for name in names]
    unknown = [name for name, label in zip(names, found, strict=True) if label is None]
    expected = f"Expected each of {', '.join(LABELS)} once, in the order of the outputs, in any common spelling."
    if unknown:
        quote = " Quote names that contain spaces." if len(names) > len(LABELS) else ""
        raise InputError(f"--labels has unknown classes: {', '.join(map(repr, unknown))}. {expected}{quote}")
    if twice := sorted({str(label) for label in found if found.count(label) > 1}):
        raise InputError(f"--labels has {', '.join(twice)} twice: {', '.join(map(str, found))}. {expected}")
    if len(found) != len(LABELS):
        missing = ", ".join(label for label in LABELS if label not in found)
        raise InputError(f"--labels has {len(found)} classes; {missing} is missing. {expected}")
    return tuple(str(label) for label in found)


def decide(
    statements: Sequence[Statement], given: Sequence[str], file: str, count: int = len(LABELS), option: str = "--labels"
) -> ClassOrder:
    """The class order on which all statements agree.

    given: canonical names given by the user or a bundle; () for none. option: what error messages call `given`.
    file: name of the checkpoint, for messages. count: number of outputs of the network.

    Raises CheckpointError if two statements contradict each other, InputError if a statement contradicts `given`;
    CheckpointError also if the number of names differs from `count`, and for unknown class names without `given`.
    """
    for one in statements:
        if len(one.names) != count:
            raise CheckpointError(
                f"{one.where} names {len(one.names)} classes ({', '.join(one.names[:8])}), but the network of {file} "
                f"has {count} outputs. Correct or remove the list of classes if it belongs to another network."
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
            f"{one.where} has the class names {', '.join(map(repr, one.names))}, expected {', '.join(LABELS)} in any "
            f"common spelling. Give the classes in the order of the outputs, such as {_GIVE}"
        )
    return ClassOrder(ALPHABETICAL, ASSUMED, f"{file} does not state it, and neither does a file beside it")


def _agree(one: Sequence[str | None], other: Sequence[str | None]) -> bool:
    """Whether the orders are consistent: no output has two classes and no class has two outputs. None: unknown."""
    same = all(a == b for a, b in zip(one, other, strict=True) if a is not None and b is not None)
    both = [a or b for a, b in zip(one, other, strict=True)]
    known = [label for label in both if label is not None]
    return same and len(set(known)) == len(known)


def _contradiction(one: str, other: str, file: str) -> str:
    return (
        f"Contradictory class orders for {file}:\n  {one}\n  {other}\nNothing was built, because predictions would be "
        "wrong with the wrong order. Find out which order the network was trained with, and correct or remove the "
        "other."
    )
