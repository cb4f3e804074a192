"""Pickling support for `Predictor`: another process loads the same bundle or artifact, or raises an error."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import BundleError

OPTIONS = (
    *("backend", "precision", "device", "threads", "optimize_for", "guard"),
    *("abstain_below", "self_test", "tune", "audit", "audit_key", "isolate", "max_pixels"),
    *("trust_code", "trusted_key", "trusted_digest"),
)
"""Arguments of `Predictor` that are pickled."""


def restored(kind: Callable[..., Any], path: str, options: dict[str, Any], digest: str) -> Any:
    """The unpickled `kind`, loaded in this process from `path`. Raises TrustError if the bundle or lone artifact there
    has another digest, BundleError if it does not exist."""
    if not Path(path).exists():
        raise BundleError(f"{path}, the path of a pickled Predictor, does not exist here. Copy the bundle there.")
    made = kind(path, **{**options, "trusted_digest": digest})
    made._options = dict(options)
    return made


def absolute(path: bool | str | os.PathLike[str] | None) -> bool | str | None:
    """The absolute path, as text; None and booleans are returned unchanged."""
    return path if path is None or isinstance(path, bool) else str(Path(path).absolute())
