"""Commands and spelling suggestions for messages; commands are quoted for the shell."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import stageproof
from stageproof import IN_CHECKOUT
from stageproof.commands import MODULES
from stageproof.runtime.text.escapes import line


def program(module: str) -> str:
    """The command for `module`: ``stageproof export``, or ``python -m export`` if it was started so in a checkout.

    module: name for `python -m` in a checkout, such as ``train.audit``.
    """
    if IN_CHECKOUT and not _started_by_name() and _is_found(module.partition(".")[0]):
        return f"python -m {module}"
    return f"stageproof {MODULES[module]}"


def _started_by_name() -> bool:
    """Whether this process was started as `stageproof` or `python -m stageproof`."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    return (spec.name if spec else Path(sys.argv[0]).stem) in ("stageproof", "stageproof.__main__")


def _is_found(package: str) -> bool:
    """Whether `python -m` finds our package by its short name, that is, the checkout is on the import path."""
    spec = find_spec(package)
    return spec is not None and spec.origin == str(Path(stageproof.__file__).parents[1] / package / "__init__.py")


def command(module: str, *words: object) -> str:
    """`program` followed by `words` (paths, options and their values), quoted for the shell."""
    return " ".join([program(module), *(quoted(str(word)) for word in words)])


def quoted(word: str) -> str:
    """The word quoted for a shell, on one line, with control characters escaped as in ``$'a\\nb'``."""
    if line(word) == word:
        return shlex.quote(word)
    plain = "".join(f"\\{sign}" if sign in "'\\" else sign for sign in word)
    return f"$'{line(plain)}'"


def nearest(word: str, known: Iterable[str]) -> str:
    """`` Did you mean …?`` if `word` is a likely misspelling of one of `known`; otherwise empty."""
    found = _alike(word, list(known))
    return f" Did you mean {quoted(found[0])}?" if found else ""


def nearest_path(path: Path) -> str:
    """As `nearest`, for a path that does not exist; names the missing parent folder, if any."""
    above = next((folder for folder in path.absolute().parents if folder.is_dir()), None)
    if above is None or path.exists():
        return ""
    rest = path.absolute().relative_to(above).parts
    names = [other.name for other in above.iterdir()] if os.access(above, os.R_OK) else []
    if len(rest) > 1:
        return f" There is no {rest[0]} in {above}.{nearest(rest[0], names)}"
    found = _alike(rest[0], names)
    return f" Did you mean {quoted(str(path.parent / found[0]))}?" if found else ""


def _alike(word: str, known: list[str]) -> list[str]:
    from difflib import get_close_matches  # imported here: only needed for error messages

    return get_close_matches(word, known, 1, 0.75)


def missing_guard(path: Path) -> str:
    """The warning for a bundle or lone artifact without a guard."""
    what = "is a lone artifact, which has no guard" if path.is_file() else "has no guard"
    advice = " Give its bundle folder instead." if path.is_file() else ""
    return f"{path} {what}: every image gets a class, even if it shows no brain. Results have guard: none.{advice}"
