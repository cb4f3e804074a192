"""The class order of a checkpoint: which class each output of the network is.

A `Statement` of the class order may be in the checkpoint (`train.foreign.stated_order`), in a file beside it
(`train.foreign.side_files`) or in `--labels`. All statements must agree, otherwise nothing is exported. They also
define the label set: a known one in any spelling, or the names as they are. Without any statement, the four stages in
alphabetical order are assumed for four outputs, as torchvision's ImageFolder sorts them, and reported as assumed; for
other numbers of outputs the names must be given.

Does not import torch or NumPy, because options are checked before these are imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stageproof.runtime.errors import CheckpointError, InputError
from stageproof.runtime.labels import ALPHABETICAL, ASSUMED, LABELS, LabelSet, label_set
from stageproof.train.foreign.class_names import (
    GIVE,
    NOTHING,
    Given,
    canonical,
    given_labels,
    known_set,
    says_nothing,
    set_of,
    unnumbered,
)

__all__ = ["NOTHING", "ClassOrder", "Given", "Statement", "decide", "given_labels"]


@dataclass(frozen=True)
class Statement:
    """A class order found in a file or option."""

    where: str
    """Description of its source, such as ``class_to_idx in model.pth``."""
    names: tuple[str, ...]
    """Class names as spelt there, in the order of the outputs."""

    @property
    def labels(self) -> tuple[str | None, ...]:
        """The canonical name of each; None for a name that no known scale has."""
        return canonical(self.names)

    def within(self, classes: LabelSet) -> tuple[str | None, ...]:
        """The canonical name of each in `classes`; None for a name that is not one of them."""
        return tuple(classes.find(name) for name in unnumbered(self.names))

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
    classes: LabelSet
    """The same classes in clinical order, and which are positive."""
    clinical_order_assumed: bool = False
    """Whether the clinical order is only that of the outputs, because no known scale has these classes."""

    def __str__(self) -> str:
        names = ", ".join(self.labels)
        if self.origin == ASSUMED:
            return (
                f"class order {ASSUMED}: {names}. {self.where}. If the network was trained with another order, "
                f"predictions are wrong. Check the order, or give it, such as {GIVE}"
            )
        custom = (
            "; no known label set, so the clinical order is assumed to be the same: if not, give --classes"
            if self.clinical_order_assumed
            else ""
        )
        return f"class order: {names} ({self.where}{custom})"


def decide(
    statements: Sequence[Statement],
    given: Given | Sequence[str],
    file: str,
    count: int = len(LABELS),
    option: str = "--labels",
) -> ClassOrder:
    """The class order on which all statements agree.

    given: classes given by the user or a bundle. option: what error messages call them.
    file: name of the checkpoint, for messages. count: number of outputs of the network.

    Raises CheckpointError if two statements contradict each other, InputError if a statement contradicts `given`;
    CheckpointError also if the number of names differs from `count`, for names that only number the classes, and
    without any names unless there are four outputs.
    """
    given = given if isinstance(given, Given) else given_labels(given)
    for one in statements:
        if len(one.names) != count:
            raise CheckpointError(
                f"{one.where} names {len(one.names)} classes ({', '.join(one.names[:8])}), but the network of {file} "
                f"has {count} outputs. Correct or remove the list of classes if it belongs to another network."
            )
    if given.classes is not None and len(given.classes) != count:
        raise InputError(
            f"{option if given.labels else '--classes'} has {len(given.classes)} classes "
            f"({', '.join(given.classes.names)}), but the network of {file} has {count} outputs, one for each class."
        )
    telling = [one for one in statements if not says_nothing(one.names)]
    classes = given.classes or _classes(telling, given.positive)
    if classes is None:
        return _without_names(statements, file, count)
    read = [(one, one.within(classes)) for one in statements]
    for at, (one, labels) in enumerate(read):
        for other, others in read[at + 1 :]:
            unlike = not any(others) and other in telling and not given.labels
            if unlike or not _agree(labels, others):
                raise CheckpointError(_contradiction(str(one), str(other), file))
    if given.labels:
        for one, labels in read:
            if not _agree(labels, given.labels):
                raise InputError(_contradiction(str(one), f"{option}: {', '.join(given.labels)}", file))
    for one, labels in read:
        if None not in labels:
            custom = given.classes is None and known_set(one.names) is None
            found = tuple(str(label) for label in labels)
            return ClassOrder(found, "checkpoint", f"from {one.where}", classes, custom)
    if given.labels:
        return ClassOrder(given.labels, "option", f"from {option}", classes, known_set(given.labels) is None)
    if telling:
        unknown = [
            repr(name) for name, label in zip(telling[0].names, telling[0].within(classes), strict=True) if not label
        ]
        raise InputError(
            f"--classes is {', '.join(classes.names)}, but {telling[0].where} also names {', '.join(unknown)}. Give "
            "the same classes, in clinical order."
        )
    raise InputError(
        f"--classes gives the clinical order of {', '.join(classes.names)}, not the order of the outputs, which {file} "
        f"does not state. Give it: --labels {' '.join(classes.names)}"
    )


def _classes(telling: Sequence[Statement], positive: Sequence[str]) -> LabelSet | None:
    """The label set that the statements define: a known one if any statement has it, else the names of the first.
    None without statements. Raises CheckpointError for names that are no label set."""
    known = next((one for one in telling if known_set(one.names) is not None), telling[0] if telling else None)
    if known is None:
        return None
    try:
        return set_of(known.names, positive)
    except InputError as error:
        raise CheckpointError(f"{known.where} has {error}") from error


def _without_names(statements: Sequence[Statement], file: str, count: int) -> ClassOrder:
    """The assumed order of the four stages. Raises CheckpointError for other numbers of outputs, and for statements
    that only number the classes."""
    example = GIVE if count == len(LABELS) else f"--labels {' '.join(f'CLASS{number}' for number in range(count))}"
    if statements:
        one = statements[0]
        raise CheckpointError(
            f"{one.where} has the class names {', '.join(map(repr, one.names))}, which do not say what the classes "
            f"are. Give the classes in the order of the outputs, such as {example}"
        )
    if count != len(LABELS):
        raise CheckpointError(
            f"The network of {file} has {count} outputs, and neither {file} nor a file beside it says which classes "
            f"they are. Give the classes in the order of the outputs: {example}"
        )
    where = f"{file} does not state it, and neither does a file beside it"
    return ClassOrder(ALPHABETICAL, ASSUMED, where, label_set(LABELS))


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
