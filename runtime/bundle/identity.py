"""Which bundle or artifact was loaded, so that another process loads the same one or none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import BundleError

OPTIONS = (
    *("backend", "precision", "device", "threads", "guard"),
    *("abstain_below", "self_test", "tune", "audit", "audit_key", "isolate", "max_pixels"),
    *("trust_code", "trusted_key", "trusted_digest"),
)
"""Of `Predictor`, which travel with it to another process."""


def restored(kind: Callable[..., Any], path: str, options: dict[str, Any], digest: str) -> Any:
    """What was pickled: `kind` made again, in this process, of what has that digest. Raises TrustError where the bundle
    or lone artifact is another one now, BundleError where it is gone."""
    if not Path(path).exists():
        raise BundleError(f"{path}, which a pickled Predictor names, does not exist here. Copy it there.")
    made = kind(path, **{**options, "trusted_digest": digest})
    made._options = dict(options)
    return made


def absolute(path: bool | str | os.PathLike[str] | None) -> bool | str | None:
    """The same in every working folder; an option that is no path stays as it is."""
    return path if path is None or isinstance(path, bool) else str(Path(path).absolute())
