"""The known clinical scales: their classes in clinical order, and the spellings of each in public datasets."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_DECORATION = re.compile(r"^(final)?(.+?)(jpe?g|png|images?)?$")
"""Words around class names in public copies of ADNI, such as ``Final AD JPEG``."""


def plain(name: str) -> str:
    """The name in lower case, without spaces, punctuation and underscores: equal for spellings of one name."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFC", name).casefold())


@dataclass(frozen=True)
class Scale:
    """Classes in clinical order, the least severe first. A label set has some of them, or all."""

    spellings: Mapping[str, Sequence[str]]
    """Canonical name → its other spellings, as `plain` returns them."""
    positive: tuple[str, ...]
    """Classes that count as positive in the two-way question."""
    positive_name: str
    """What a positive is called, such as ``demented``; empty: by the names of the positive classes."""
    whole: bool = False
    """Whether data with some of the classes has the whole scale: the others are absent, not unknown."""
    cdr: Mapping[str, float] | None = None
    """Clinical Dementia Rating of each class; None if the scale does not define it."""

    @property
    def names(self) -> tuple[str, ...]:
        """All classes, in clinical order."""
        return tuple(self.spellings)

    def canonical(self, name: str) -> str | None:
        """The canonical name for any known spelling; None for other names."""
        found = self._known().get(plain(name))
        if found is None and (match := _DECORATION.match(plain(name))):
            found = self._known().get(match[2])
        return found

    def _known(self) -> dict[str, str]:
        pairs = ((name, (plain(name), *others)) for name, others in self.spellings.items())
        return {spelling: name for name, spellings in pairs for spelling in spellings}


def _stage(*stems: str) -> tuple[str, ...]:
    endings = ("demented", "dementia", "impairment", "impaired")
    return tuple(stem + ending for stem in stems for ending in endings)


_STAGES = Scale(
    {
        "NonDemented": _stage("non", "no", "not"),
        "VeryMildDemented": _stage("verymild"),
        "MildDemented": _stage("mild"),
        "ModerateDemented": _stage("moderate"),
    },
    positive=("VeryMildDemented", "MildDemented", "ModerateDemented"),
    positive_name="demented",
    whole=True,
    cdr={"NonDemented": 0.0, "VeryMildDemented": 0.5, "MildDemented": 1.0, "ModerateDemented": 2.0},
)
_DEMENTED = Scale(
    {"NonDemented": _stage("non", "no", "not"), "Demented": ("dementia", "impaired")},
    positive=("Demented",),
    positive_name="demented",
    whole=True,
)
_ADNI = Scale(
    {
        "CN": (
            *("nc", "hc", "normal", "control", "controls", "healthy", "healthycontrol", "healthycontrols"),
            *("cognitivelynormal", "cognitivenormal", "normalcontrol", "normalcontrols", "cognitivelyunimpaired"),
        ),
        "SMC": ("significantmemoryconcern", "subjectivememoryconcern"),
        "EMCI": ("earlymci", "earlymildcognitiveimpairment"),
        "MCI": ("mildcognitiveimpairment",),
        "LMCI": ("latemci", "latemildcognitiveimpairment"),
        "AD": ("dementia", "alzheimer", "alzheimers", "alzheimerdisease", "alzheimersdisease", "alzheimersdementia"),
    },
    positive=("AD",),
    positive_name="",
)
_RATINGS = {"0": "0", "0.5": "05", "1": "1", "2": "2", "3": "3"}
_CDR = Scale(
    {
        f"CDR {rating}": (f"cdr{rating}0" if "." not in rating else "cdr050", f"clinicaldementiarating{digits}")
        for rating, digits in _RATINGS.items()
    },
    positive=tuple(f"CDR {rating}" for rating in _RATINGS if rating != "0"),
    positive_name="demented",
    cdr={f"CDR {rating}": float(rating) for rating in _RATINGS},
)

SCALES: tuple[Scale, ...] = (_STAGES, _DEMENTED, _ADNI, _CDR)
"""All scales. Names that several scales know, such as NonDemented, belong to the first one that knows all the names."""

BUILT_IN: dict[str, tuple[str, ...]] = {
    "four-stages": _STAGES.names,
    "demented-or-not": _DEMENTED.names,
    "cn-ad": ("CN", "AD"),
    "cn-mci-ad": ("CN", "MCI", "AD"),
    "cn-emci-lmci-ad": ("CN", "EMCI", "LMCI", "AD"),
    "cn-smc-emci-lmci-ad": ("CN", "SMC", "EMCI", "LMCI", "AD"),
    "cn-emci-mci-lmci-ad": ("CN", "EMCI", "MCI", "LMCI", "AD"),
    "cdr": _CDR.names,
}
"""Name of each built-in label set → its classes, in clinical order."""

LABELS: tuple[str, ...] = _STAGES.names
"""The four stages in clinical order (CDR 0, 0.5, 1, 2)."""

ALPHABETICAL: tuple[str, ...] = tuple(sorted(LABELS))
"""Order of the four stages in torchvision's ImageFolder, and therefore of most published checkpoints."""

CDR: Mapping[str, float] = dict(_STAGES.cdr or {})
"""Clinical Dementia Rating of each of the four stages in OASIS-1, from which the public datasets are drawn."""


def canonical_label(name: str) -> str | None:
    """Canonical name of one of the four stages for any common spelling (``Very_Mild_Demented``, ``mild impairment``,
    …), or None. `LabelSet.find` does this for any label set."""
    return _STAGES.canonical(name)


def rating(value: str) -> str | None:
    """The class of the CDR scale for a number, such as ``0.5``, ``0,5`` or ``CDR 0.5``; None for anything else."""
    match = re.fullmatch(r"\s*(?:cdr[\s_=:-]*)?(\d*[.,]?\d+|\d+\.)\s*", value.casefold())
    if match is None:
        return None
    name = f"CDR {float(match[1].replace(',', '.')):g}"
    return name if name in _CDR.names else None
