"""The four classes: canonical names, the spellings seen in the wild, and their clinical order."""

from __future__ import annotations

import re

LABELS: tuple[str, ...] = ("NonDemented", "VeryMildDemented", "MildDemented", "ModerateDemented")
"""Canonical names in clinical order (CDR 0, 0.5, 1, 2). Models trained here use this order for their outputs."""

ALPHABETICAL: tuple[str, ...] = tuple(sorted(LABELS))
"""The order torchvision's ImageFolder gives the classes, hence that of most published checkpoints."""

CDR: dict[str, float] = {"NonDemented": 0.0, "VeryMildDemented": 0.5, "MildDemented": 1.0, "ModerateDemented": 2.0}
"""Clinical Dementia Rating of each class in OASIS-1, from which the public datasets are drawn."""

ASSUMED = "assumed alphabetical"
"""Where the order of a model's classes comes from when nothing stated it."""

LABELS_FROM: tuple[str, ...] = ("run", "checkpoint", "option", ASSUMED)
"""Where it may come from: the record of a training run, what the checkpoint or a file beside it states, `--labels`, or
nothing at all."""

ORIGINS: dict[str | None, str] = {
    "run": "recorded by the training run",
    "checkpoint": "stated by the checkpoint, or by a file beside it",
    "option": "given with --labels at export",
    ASSUMED: f"{ASSUMED}: nothing stated it, so check it before any use",
    None: "origin not recorded",
}
"""The same for people; None: a lone artifact, or a bundle of version 0.1."""

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


def order_line(labels: tuple[str, ...], origin: str | None) -> str:
    """One line for people: the order of a model's outputs, and where it comes from (one of `LABELS_FROM`, or None)."""
    if origin == ASSUMED:
        return (
            f"class order {ASSUMED}: {', '.join(labels)}. Nothing stated it at export; in another order every answer "
            "is a wrong class."
        )
    return f"class order: {', '.join(labels)} ({ORIGINS[origin]})"
