"""`LabelSet`: an ordered set of classes, as data; `recognise` finds the built-in one that class names belong to."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from stageproof.runtime.errors import InputError
from stageproof.runtime.labels.scales import BUILT_IN, SCALES, Scale, rating

LARGEST = 20
"""Maximum number of classes."""
_LONGEST = 64
"""Maximum length of a class name, in characters."""


@dataclass(frozen=True)
class LabelSet:
    """Classes in clinical order, and which of them are positive. `label_set` makes one and checks it."""

    names: tuple[str, ...]
    """Canonical names, the least severe first. Models trained here use this order for their outputs."""
    positive: tuple[str, ...]
    """The classes that count as positive in the two-way question, in clinical order."""

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """Position of a canonical name. Raises ValueError for any other name."""
        return self.names.index(name)

    def find(self, name: str) -> str | None:
        """The canonical name in this set for any known spelling of it; None if there is none, or more than one."""
        name = _composed(name)
        for same in (str.strip, lambda one: one.strip().casefold(), _joined):
            found = [one for one in self.names if same(_composed(one)) == same(name)]
            if len(found) == 1:
                return found[0]
        scale = self._scale
        if scale is None:
            return None
        known = _spelt(scale, name) or _rated(scale, name)
        return known if known in self.names else None

    @cached_property
    def is_positive(self) -> np.ndarray:
        """(classes,) bool: which classes are positive."""
        return np.array([name in self.positive for name in self.names])

    @property
    def title(self) -> str:
        """The built-in name of the set, such as ``cn-mci-ad``; ``custom`` for others."""
        return next((title for title, names in BUILT_IN.items() if names == self.names), "custom")

    @property
    def positive_name(self) -> str:
        """What a positive is called, such as ``demented``, ``AD``, or ``MCI or AD``."""
        scale = self._scale
        if scale is not None and self.positive == tuple(name for name in self.names if name in scale.positive):
            return scale.positive_name or " or ".join(self.positive)
        return " or ".join(self.positive)

    @property
    def question(self) -> str:
        """The two-way question, such as ``demented or not``."""
        return f"{self.positive_name} or not" if " or " not in self.positive_name else f"{self.positive_name}, or not"

    @property
    def short(self) -> tuple[str, ...]:
        """Names for charts, in order: those of the four stages without ``Demented``."""
        return tuple(name.removesuffix("Demented") or name for name in self.names)

    def cdr(self, name: str) -> float | None:
        """Clinical Dementia Rating of a class; None if the set does not define it."""
        scale = self._scale
        return None if scale is None or scale.cdr is None else scale.cdr.get(name)

    @property
    def has_cdr(self) -> bool:
        """Whether each class has a Clinical Dementia Rating."""
        return all(self.cdr(name) is not None for name in self.names)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the keys ``clinical_order`` and ``positive``, as in a run, an artifact and a manifest."""
        return {"clinical_order": list(self.names), "positive": list(self.positive)}

    @cached_property
    def _scale(self) -> Scale | None:
        return next((scale for scale in SCALES if set(self.names) <= set(scale.names)), None)


def label_set(names: Sequence[str], positive: Sequence[str] = ()) -> LabelSet:
    """The label set of `names`, which are in clinical order, the least severe first.

    Names that all belong to one known scale are replaced by its canonical ones. positive: names of the positive
    classes, in any order; if (): those of the scale, else all but the first.

    Raises InputError for fewer than 2 or more than 20 classes, names that are equal, empty or unprintable, an order
    that contradicts the scale, and positive classes that are none or all of them.
    """
    given = tuple(_composed(name).strip() for name in names)
    if not 2 <= len(given) <= LARGEST:
        raise InputError(f"{len(given)} classes ({', '.join(given[:8])}), expected 2 to {LARGEST}.")
    for name in given:
        if not name or len(name) > _LONGEST or any(unicodedata.category(one)[0] in "CZ" and one != " " for one in name):
            raise InputError(f"class name {name[:80]!r}: expected 1 to {_LONGEST} printable characters.")
        if "/" in name or "\\" in name or "," in name or not name.strip("."):
            raise InputError(f"class name {name!r}: expected a name without commas and slashes, not of dots alone.")
    scale = _scale_of(given)
    found = given if scale is None else tuple(str(_spelt(scale, name)) for name in given)
    if twice := sorted({name for name in found if [one.casefold() for one in found].count(name.casefold()) > 1}):
        raise InputError(f"{', '.join(given)}: {', '.join(twice)} is named twice. Expected each class once.")
    if scale is not None and found != (ordered := tuple(name for name in scale.names if name in found)):
        raise InputError(f"classes {', '.join(given)}: expected them in clinical order, {', '.join(ordered)}.")
    usual = found[1:] if scale is None else _positive(scale, found)
    made = LabelSet(found, usual)
    if not positive:
        return made
    chosen = {name: made.find(name) for name in positive}
    if unknown := [name for name, one in chosen.items() if one is None]:
        raise InputError(f"positive classes {', '.join(unknown)}: expected some of {', '.join(found)}.")
    if len(set(chosen.values())) == len(found):
        raise InputError(f"all classes are positive ({', '.join(found)}); expected at least one that is not.")
    return LabelSet(found, tuple(name for name in found if name in chosen.values()))


def recognise(names: Iterable[str]) -> LabelSet | None:
    """The label set that the class names of a dataset belong to, in any spelling; None if no scale knows all of them.

    Some of the four stages, or of demented and not, make the whole set. Of the other scales, the set has the classes
    that occur; one alone makes the smallest built-in set that contains it. Bare numbers are ratings (CDR) only if one
    of them is 0.5.
    """
    given = set(names)
    scale = _scale_of(given)
    if scale is None:
        return None
    found = {_spelt(scale, name) for name in given}
    occurring = scale.names if scale.whole else tuple(name for name in scale.names if name in found)
    if len(occurring) == 1:
        occurring = min((one for one in BUILT_IN.values() if found <= set(one)), key=len)
    return label_set(occurring)


def named_or_listed(classes: str, positive: str = "") -> LabelSet:
    """The label set of the options ``--classes`` and ``--positive``: the name of a built-in set, or names in clinical
    order, separated by commas. Raises InputError as `label_set`."""
    listed = BUILT_IN.get(classes.strip().casefold()) or [part for part in classes.split(",") if part.strip()]
    if len(listed) == 1:
        raise InputError(
            f"--classes is {classes!r}, expected class names in clinical order, separated by commas, or one of "
            f"{', '.join(BUILT_IN)}."
        )
    return label_set(listed, [part.strip() for part in positive.split(",") if part.strip()])


def _composed(name: str) -> str:
    """The name in Unicode's normalisation form C: macOS writes the names of folders decomposed."""
    return unicodedata.normalize("NFC", name)


def _rated(scale: Scale, name: str) -> str | None:
    """The class of the scale with the Clinical Dementia Rating in `name`, such as CDR 0.5; None for a number alone,
    which may be a position."""
    rated = None if _is_bare(name) else rating(name)
    classes = {f"CDR {cdr:g}": one for one, cdr in (scale.cdr or {}).items()}
    return classes.get(rated or "")


def _is_bare(name: str) -> bool:
    return name.strip()[:1].isdigit() or name.strip()[:1] == "."


def _joined(name: str) -> str:
    """The name in lower case, without separators between words. Other punctuation counts: A+ and A- are two classes,
    and so are 2.0 and 20."""
    return re.sub(r"(?<=[^\W_])[\s_-]+(?=[^\W\d_])|(?<=[^\W\d_])[\s_-]+(?=[^\W_])", "", name.strip().casefold())


def _positive(scale: Scale, names: tuple[str, ...]) -> tuple[str, ...]:
    """The positive ones of `names`; all but the first if that would be none or all of them."""
    found = tuple(name for name in names if name in scale.positive)
    return found if 0 < len(found) < len(names) else names[1:]


def _scale_of(names: Collection[str]) -> Scale | None:
    """The first scale that knows all names. Bare numbers may be codes; a 0.5 among them shows that they are ratings."""
    bare = [name for name in names if _is_bare(name)]
    if not names or (bare and not any(rating(name) == "CDR 0.5" for name in names)):
        return None
    return next((scale for scale in SCALES if all(_spelt(scale, name) for name in names)), None)


def _spelt(scale: Scale, name: str) -> str | None:
    rated = rating(name)
    return rated if rated is not None and rated in scale.names else scale.canonical(name)
