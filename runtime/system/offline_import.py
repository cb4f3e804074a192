"""Import an engine without its telemetry: `import_onnxruntime`, `import_without`."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

_NO_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED")
"""Environment variables; the second is an earlier name of the first."""


def import_onnxruntime() -> ModuleType:
    """`onnxruntime`, without the events that it sends to Microsoft.

    Its wheels (1.32, Privacy.md) write an identifier of the machine to ~/.cache/Microsoft, and send events over HTTPS,
    unless an environment variable is set before the first import. It is set here, also for child processes. A value
    that is set already is kept. If the host program has imported onnxruntime before, later events are switched off,
    but not those of that import.
    """
    if not any(name in os.environ for name in _NO_TELEMETRY):
        os.environ.update(dict.fromkeys(_NO_TELEMETRY, "1"))
    module = importlib.import_module("onnxruntime")
    if os.environ.get(_NO_TELEMETRY[0]) != "0":
        module.disable_telemetry_events()
    return module


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
