"""Importing packages without the parts of them that talk to the network."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType


def import_without(name: str, unwanted: str) -> ModuleType:
    """The module `name`, imported as if the package `unwanted`, which it can do without, were not installed.

    A host that imported either before has made its own choice, and so has one that imports `unwanted` later. Only an
    import of `unwanted` in another thread at the same moment would fail too.
    """
    hidden = unwanted not in sys.modules and name not in sys.modules
    if hidden:
        sys.modules[unwanted] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(name)
    finally:
        if hidden:
            del sys.modules[unwanted]
