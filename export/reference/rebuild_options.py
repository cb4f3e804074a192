"""Checks that the model options given with --rebuild agree with the bundle. Does not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stageproof.export.options import Options
from stageproof.runtime.bundle.manifest import ModelInfo
from stageproof.runtime.errors import InputError
from stageproof.train.foreign.class_order import given_labels


def assert_agrees(options: Options, model: ModelInfo, bundle: Path) -> None:
    """Raise InputError for a model option that differs from the value in the bundle."""
    spec = model.input
    given = given_labels(options.labels, options.classes, options.positive).classes
    rules: list[tuple[str, Any, Any]] = [
        ("--architecture", options.architecture, model.architecture),
        ("--image-size", options.image_size, spec.height if spec.height == spec.width else (spec.height, spec.width)),
        ("--labels", tuple(model.classes.find(label) or label for label in options.labels), model.labels),
        ("--classes", given.names if given else (), model.classes.names),
        ("--positive", given.positive if given and options.positive else (), model.classes.positive),
        ("--mean", options.mean, spec.mean),
        ("--std", options.std, spec.std),
    ]
    for option, got, expected in rules:
        if got not in (None, (), expected):
            raise InputError(
                f"{option} is {readable(got)}, but {bundle} was made with {readable(expected)}. --rebuild uses the "
                f"bundle's value: leave {option} out, or export to another --out."
            )


def readable(value: Any) -> str:
    """The value as text for messages; items of a list separated by spaces."""
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
