"""`resolve`: the label set of a data source and the class of each slice, from names, positions or ratings.

The only module that decides what a label stands for: class folders, tables, parquet files and participants.tsv use it.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.labels import BUILT_IN, LabelSet, recognise
from stageproof.runtime.labels.scales import plain, rating

_RATINGS = {"cdr", "cdrglobal", "globalcdr", "cdglobal", "cdrglob"}
"""Names of columns with a global Clinical Dementia Rating, as in OASIS, ADNI and NACC tables."""
_SHOWN = 6


class UnknownLabelSetError(DatasetError):
    """The class names of the data belong to no built-in label set, and none was given."""


_log = logging.getLogger(__name__)


def resolve(
    values: Sequence[Any],
    where: str,
    classes: LabelSet | None = None,
    *,
    declared: Iterable[str] = (),
    ratings: bool = False,
    names: Sequence[str] = (),
    by_position: bool = True,
) -> tuple[LabelSet, np.ndarray]:
    """The label set, and (N,) int64 indices in its `names`.

    values: (N,) the label of each slice: a name, or a number as an integer, whole float or text. where: the source, for
    messages. classes: the label set of the data; None: the built-in one that all names belong to.
    declared: classes of the source that may have no slice. ratings: whether numbers are Clinical Dementia Ratings; so
    they are, too, if one of them is 0.5. Other numbers are positions in `classes`, from 0; without `by_position` they
    are refused. names: (N,) names of the slices, for messages.

    Raises DatasetError for missing and unknown labels, for names of several label sets, and for numbers without
    `classes`.
    """
    texts = [label_text(value) for value in values]
    if empty := [at for at, text in enumerate(texts) if not text]:
        example = f", such as that of {names[empty[0]]!r}" if names else ""
        raise DatasetError(
            f"{where}: {len(empty)} of {len(texts)} labels are empty{example}. Give the class of every slice, or "
            "remove these slices."
        )
    found = dict.fromkeys(texts)
    numbers = all(map(_number, found))
    rated = ratings or (numbers and any(rating(text) == "CDR 0.5" for text in found))
    asked = {text: (rating(text) or text) if rated else text for text in found}
    if classes is None:
        classes = _recognised(list(dict.fromkeys(asked.values())), [label_text(one) for one in declared], where)
    known = {text: classes.find(name) for text, name in asked.items()}
    if None in known.values():
        if ratings and numbers:
            raise _not_rated(known, classes, where)
        known = dict(_by_position(known, classes, where, by_position))
    elif not ratings and any(text.isdecimal() and text != "0" and text not in classes.names for text in found):
        _check_ratings(list(found), classes, where)
    return classes, np.array([classes.index(str(known[text])) for text in texts], np.int64)


def label_text(value: Any) -> str:
    """A label as text: whole numbers without a fraction (2, 2.0, "2.0" → "2"); empty for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    text = str(value).strip()
    whole = re.fullmatch(r"([+-]?\d+)\.0*", text)
    return whole[1] if whole else text


def is_rating_column(name: str) -> bool:
    """Whether a column of this name has Clinical Dementia Ratings."""
    return plain(name) in _RATINGS


def is_class(name: str, classes: LabelSet | None) -> bool:
    """Whether `name`, such as that of a folder, is a class of `classes`, by name or position; of any built-in set if
    `classes` is None."""
    if classes is None:
        return recognise([name]) is not None
    return classes.find(name) is not None or (name.isdecimal() and int(name) < len(classes))


def name_classes(values: Iterable[Any]) -> bool:
    """Whether most of the values are names of classes, as in a column named group: these are no patients.

    Not all: OASIS-2 has Converted beside Demented and Nondemented. Not a few: AD may be somebody's initials.
    """
    texts = {label_text(value) for value in values} - {""}
    return 2 * sum(recognise([text]) is not None for text in texts) > len(texts)


def built_in_sets() -> str:
    """The built-in label sets with their classes, for messages."""
    return "; ".join(f"{title} ({', '.join(names)})" for title, names in BUILT_IN.items())


def _recognised(occurring: list[str], declared: list[str], where: str) -> LabelSet:
    """The built-in label set of the names. Declared classes without a slice count if all names belong to one set."""
    found = recognise({*occurring, *declared}) or recognise(occurring)
    if found is not None:
        return found
    given = ", ".join(map(repr, occurring[:_SHOWN])) + (" …" if len(occurring) > _SHOWN else "")
    if all(_number(name) for name in occurring):
        numbers = given.replace("'", "")
        raise UnknownLabelSetError(
            f"{where}: the labels are the numbers {numbers}, and nothing gives their order. Name the classes in the "
            f"order of these numbers, from 0: --classes A,B,C, or a built-in set: {built_in_sets()}. Numbers in a "
            "column named CDR are Clinical Dementia Ratings."
        )
    odd = [repr(name) for name in occurring if recognise([name]) is None]
    which = f"{', '.join(odd[:_SHOWN])} {'is' if len(odd) == 1 else 'are'} in none" if odd else "they are of several"
    raise UnknownLabelSetError(
        f"{where}: the classes {given} are not those of one built-in label set ({which}). Name all classes in clinical "
        f"order, the least severe first: --classes A,B,C. The built-in sets are {built_in_sets()}."
    )


def _by_position(known: dict[str, str | None], classes: LabelSet, where: str, by_position: bool) -> dict[str, str]:
    """The classes of numbers by their position in `classes`."""
    unknown = [text for text, name in known.items() if name is None]
    given = ", ".join(map(repr, unknown[:_SHOWN])) + (f" and {len(unknown) - _SHOWN} more" if unknown[_SHOWN:] else "")
    expected = f"the classes {', '.join(classes.names)}"
    if not all(text.isdecimal() for text in known):
        raise DatasetError(
            f"{where}: {given} {'is' if len(unknown) == 1 else 'are'} none of {expected}. Correct the labels, or "
            "train with all classes of this data in clinical order: --classes A,B,C, or a built-in set."
        )
    if not by_position:
        raise DatasetError(
            f"{where}: the labels are numbers without names ({given}), and nothing states which of {expected} they "
            "are. Write the labels as names."
        )
    if any(_number(name) or rating(name) for name in classes.names):
        raise DatasetError(
            f"{where}: {given} is none of {expected}; it is not taken as a position. Correct the labels."
        )
    if outside := [text for text in known if int(text) >= len(classes)]:
        raise DatasetError(
            f"{where}: the label {outside[0]!r} is not a position in {expected}. Expected 0 to {len(classes) - 1}, in "
            "this order. Subtract 1 if the numbers begin at 1, or name all classes: --classes A,B,C."
        )
    _log.info("%s: %s", where, ", ".join(f"{text} is {classes.names[int(text)]}" for text in sorted(known, key=int)))
    return {text: classes.names[int(text)] for text in known}


def _not_rated(known: dict[str, str | None], classes: LabelSet, where: str) -> DatasetError:
    """The error for ratings of none of the classes: they are not positions."""
    unknown = ", ".join([text for text, name in known.items() if name is None][:_SHOWN])
    return DatasetError(
        f"{where}: the numbers are Clinical Dementia Ratings, and none of the classes {', '.join(classes.names)} is "
        f"defined by {unknown}. Write the labels as names; or rename the column to label if its numbers are positions "
        "in these classes, from 0."
    )


def _check_ratings(found: list[str], classes: LabelSet, where: str) -> None:
    """Raise DatasetError if numbers are ratings by name, but may be positions as well."""
    if not any(rating(text) == "CDR 0.5" for text in found):
        raise DatasetError(
            f"{where}: the numbers {', '.join(sorted(found)[:_SHOWN])} may be ratings or positions in "
            f"{', '.join(classes.names)}. Name the column CDR, or write the labels as in 'CDR 1'."
        )


def _number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+[.,]?\d*|[.,]\d+)", text) is not None
