"""The exit status of a command whose output is cut off."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

READER_LEFT = 128 + 13
"""Exit status where nobody reads the output to its end; shells give it to a program that SIGPIPE ended."""


def exit_status(main: Callable[[], int]) -> int:
    """Exit status of `main`; without a traceback where whoever reads its output leaves early, as `head` does."""
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()  # also after --help, which leaves by SystemExit
    except BrokenPipeError:
        # Python would meet the pipe once more at its own end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_LEFT
