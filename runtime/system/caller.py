"""`warn`: warnings attributed to the line of the program that called this package, at any call depth."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

_HERE = str(Path(__file__).parents[1])


def warn(message: str, category: type[Warning] = RuntimeWarning) -> None:
    """As `warnings.warn`, attributed to the innermost frame outside this package, or the outermost frame if none."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and str(Path(frame.f_code.co_filename).parent).startswith(_HERE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
