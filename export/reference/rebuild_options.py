"""Options of --rebuild against the bundle: what they say of the model must be what it says. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stageproof.export.options import Options
from stageproof.runtime.bundle.manifest import ModelInfo
from stageproof.runtime.errors import InputError
from stageproof.runtime.labels import canonical_label


def assert_agrees(options: Options, model: ModelInfo, bundle: Path) -> None:
    """Raise InputError for an option that says otherwise of the model than the bundle that is to be built again."""
    spec = model.input
    given: list[tuple[str, Any, Any]] = [
        ("--architecture", options.architecture, model.architecture),
        ("--image-size", options.image_size, spec.height if spec.height == spec.width else (spec.height, spec.width)),
        ("--labels", tuple(canonical_label(label) or label for label in options.labels), model.labels),
        ("--mean", options.mean, spec.mean),
        ("--std", options.std, spec.std),
    ]
    for option, got, expected in given:
        if got not in (None, (), expected):
            raise InputError(
                f"{option} is {spoken(got)}, and {bundle} was made with {spoken(expected)}. --rebuild takes it from "
                f"the bundle: leave {option} out, or export to another --out."
            )


def spoken(value: Any) -> str:
    """A value for people: of a list its members."""
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
