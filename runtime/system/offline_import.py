"""`import_without`: import a package without its telemetry."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType


def import_without(name: str, unwanted: str) -> ModuleType:
    """The module `name`, imported as if its optional dependency `unwanted` were not installed.

    No effect if the host program has already imported either; `unwanted` can be imported later. An import of
    `unwanted` in another thread fails while this one is running.
    """
    hidden = unwanted not in sys.modules and name not in sys.modules
    if hidden:
        sys.modules[unwanted] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(name)
    finally:
        if hidden:
            del sys.modules[unwanted]
