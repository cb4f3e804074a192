"""The formats, one module each. `FORMATS` is the one table that the command line and the errors are made from.

A format module has

    NAME          what users call it
    PRECISIONS    what it can be built in
    FILE          the artifact's name in the bundle
    build(...)    reference and path → the file is written
"""

from __future__ import annotations

from difflib import get_close_matches
from types import ModuleType

from export.formats import onnx, torchscript
from runtime.errors import InputError

FORMATS: dict[str, ModuleType] = {module.NAME: module for module in (onnx, torchscript)}


def format_module(name: str) -> ModuleType:
    """The format called `name`. Raises InputError with a suggestion; a mistyped name is never corrected silently."""
    if name in FORMATS:
        return FORMATS[name]
    close = get_close_matches(name.lower(), FORMATS, n=1)
    suggestion = f" Did you mean {close[0]!r}?" if close else ""
    raise InputError(f"No format is called {name!r}.{suggestion} Formats: {', '.join(FORMATS)}.")
