"""The order of a checkpoint's classes: read from all that states it, compared, and never guessed in silence.

An output of a network is a number; which class it stands for is known only where somebody wrote it down. What was
written down is a `Statement`: in the checkpoint (`train.foreign.stated_order`), in a file beside it, or in `--labels`.
All of them must agree, or nothing is exported. Where there is none, the order is that of torchvision's ImageFolder,
alphabetical, and is called assumed everywhere.

Imports neither torch nor numpy: options are checked before those are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stageproof.runtime.errors import CheckpointError, InputError
from stageproof.runtime.labels import ALPHABETICAL, ASSUMED, LABELS, canonical_label

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
