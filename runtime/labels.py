"""The four classes: canonical names, the spellings seen in the wild, and their clinical order."""

from __future__ import annotations

import re

LABELS: tuple[str, ...] = ("NonDemented", "VeryMildDemented", "MildDemented", "ModerateDemented")
"""Canonical names in clinical order (CDR 0, 0.5, 1, 2). Models trained here use this order for their outputs."""

ALPHABETICAL: tuple[str, ...] = tuple(sorted(LABELS))
"""The order torchvision's ImageFolder gives the classes, hence that of most published checkpoints."""

CDR: dict[str, float] = {"NonDemented": 0.0, "VeryMildDemented": 0.5, "MildDemented": 1.0, "ModerateDemented": 2.0}
"""Clinical Dementia Rating of each class in OASIS-1, from which the public datasets are drawn."""

_STEMS = {
    "NonDemented": ("non", "no", "not"),
    "VeryMildDemented": ("verymild",),
    "MildDemented": ("mild",),
    "ModerateDemented": ("moderate",),
}
_ENDINGS = ("demented", "dementia", "impairment", "impaired")
_SPELLINGS = {stem + ending: label for label, stems in _STEMS.items() for stem in stems for ending in _ENDINGS}
"""Lower-case letters of each known spelling: of OASIS-1's public copies, and of the sets that speak of impairment."""


def canonical_label(name: str) -> str | None:
    """Canonical class name for any common spelling (``Very_Mild_Demented``, ``mild impairment``, …), or None."""
    return _SPELLINGS.get(re.sub(r"[^a-z]", "", name.lower()))


def clinical_order(labels: tuple[str, ...]) -> tuple[str, ...]:
    """The given labels from healthiest to most impaired."""
    return tuple(sorted(labels, key=LABELS.index))
