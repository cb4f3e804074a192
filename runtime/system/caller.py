"""Warnings that point at the line of the program that called this package, however deep the cause lies."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

_HERE = str(Path(__file__).parents[1])


def warn(message: str, category: type[Warning] = RuntimeWarning) -> None:
    """As `warnings.warn`, of the innermost frame outside this package; of the outermost where there is none."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and str(Path(frame.f_code.co_filename).parent).startswith(_HERE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
