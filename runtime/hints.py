"""Commands that a message suggests, quoted so that a shell takes them as they stand."""

from __future__ import annotations

import shlex


def command(module: str, *words: object) -> str:
    """``python -m MODULE WORDS``: a path with a space in it, or any other sign of the shell, is quoted.

    words: paths, options and their values, in order.
    """
    return shlex.join(["python", "-m", module, *map(str, words)])
