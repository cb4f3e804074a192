"""Origins of a model's class order, and how they are described to people."""

from __future__ import annotations

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


def order_line(labels: tuple[str, ...], origin: str | None) -> str:
    """One line for people: the order of a model's outputs and its origin (one of `LABELS_FROM`, or None)."""
    if origin == ASSUMED:
        return (
            f"class order {ASSUMED}: {', '.join(labels)}. No source gave it at export; if the true order differs, "
            "predictions name the wrong classes."
        )
    return f"class order: {', '.join(labels)} ({ORIGINS[origin]})"
