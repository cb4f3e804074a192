"""`reject_repeated_lists`: an option that takes several values is given once."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from stageproof.runtime.errors import InputError


def reject_repeated_lists(options: type[Any], argv: Sequence[str] | None) -> None:
    """Raise InputError if an option with several values is given twice: of ``--to onnx --to openvino`` the parser would
    keep the last alone.

    options: dataclass of the command; its fields with a tuple as the default take several values.
    argv: None for those of the process.
    """
    words = [word.split("=")[0].replace("_", "-") for word in (sys.argv[1:] if argv is None else argv)]
    for field in dataclasses.fields(options):
        name = "--" + field.name.replace("_", "-")
        if isinstance(field.default, tuple) and words.count(name) > 1:
            raise InputError(f"{name} is given {words.count(name)} times, expected once with all values: {name} A B")
