"""The four classes: canonical names, their alternative spellings, and their clinical order."""

from __future__ import annotations

import re

LABELS: tuple[str, ...] = ("NonDemented", "VeryMildDemented", "MildDemented", "ModerateDemented")
"""Canonical names in clinical order (CDR 0, 0.5, 1, 2). Models trained here use this order for their outputs."""

ALPHABETICAL: tuple[str, ...] = tuple(sorted(LABELS))
"""Class order of torchvision's ImageFolder, and therefore of most published checkpoints."""

CDR: dict[str, float] = {"NonDemented": 0.0, "VeryMildDemented": 0.5, "MildDemented": 1.0, "ModerateDemented": 2.0}
"""Clinical Dementia Rating of each class in OASIS-1, from which the public datasets are drawn."""

ASSUMED = "assumed alphabetical"
"""Origin of the class order when neither the checkpoint nor the user gave one."""

LABELS_FROM: tuple[str, ...] = ("run", "checkpoint", "option", ASSUMED)
"""Possible origins of the class order: the record of a training run; the checkpoint or a file beside it; `--labels`;
or assumed."""

ORIGINS: dict[str | None, str] = {
    "run": "recorded by the training run",
    "checkpoint": "read from the checkpoint, or from a file beside it",
    "option": "given with --labels at export",
    ASSUMED: f"{ASSUMED}: no source gave it; check it before any use",
    None: "origin not recorded",
}
"""Origin → description for people. None: a lone artifact, or a bundle of version 0.1."""

_STEMS = {
    "NonDemented": ("non", "no", "not"),
    "VeryMildDemented": ("verymild",),
    "MildDemented": ("mild",),
    "ModerateDemented": ("moderate",),
}
_ENDINGS = ("demented", "dementia", "impairment", "impaired")
_SPELLINGS = {stem + ending: label for label, stems in _STEMS.items() for stem in stems for ending in _ENDINGS}
"""Known spelling, lower-case letters only → class: public copies of OASIS-1, and datasets with "impairment" labels."""


def canonical_label(name: str) -> str | None:
    """Canonical class name for any common spelling (``Very_Mild_Demented``, ``mild impairment``, …), or None."""
    return _SPELLINGS.get(re.sub(r"[^a-z]", "", name.lower()))


def clinical_order(labels: tuple[str, ...]) -> tuple[str, ...]:
    """The given labels from healthiest to most impaired."""
    return tuple(sorted(labels, key=LABELS.index))


def order_line(labels: tuple[str, ...], origin: str | None) -> str:
    """One line for people: the order of a model's outputs and its origin (one of `LABELS_FROM`, or None)."""
    if origin == ASSUMED:
        return (
            f"class order {ASSUMED}: {', '.join(labels)}. No source gave it at export; if the true order differs, "
            "predictions name the wrong classes."
        )
    return f"class order: {', '.join(labels)} ({ORIGINS[origin]})"
