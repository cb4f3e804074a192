"""`--patient-pattern`: extracts patient ids from file paths by a regular expression with a named group `patient`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from stageproof.runtime.errors import DatasetError, InputError
from stageproof.train.data.ids import Ids, numbered, session_numbers

_GROUPS = ("patient", "session", "slice")
_EXAMPLE = r"--patient-pattern '(?P<patient>\d+)_(?P<slice>\d+)'"


def compile_pattern(text: str) -> re.Pattern[str]:
    """The compiled expression. Raises InputError if it is invalid or has no named group `patient`."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise InputError(
            f"--patient-pattern {text!r} is not a regular expression: {error}. Quote it for the shell, such as "
            f"{_EXAMPLE}."
        ) from error
    unknown = [name for name in pattern.groupindex if name not in _GROUPS]
    if unknown or "patient" not in pattern.groupindex:
        got = f"it has the named groups {', '.join(pattern.groupindex)}" if pattern.groupindex else "it has none"
        raise InputError(
            f"--patient-pattern {text!r} needs a named group (?P<patient>…), and may have (?P<session>…) and "
            f"(?P<slice>…); {got}. An example: {_EXAMPLE}."
        )
    return pattern


def from_pattern(paths: Sequence[str], text: str, source: str) -> Ids:
    """The ids that the pattern `text` finds anywhere in the paths.

    paths: (N,) with ``/`` between folders, relative to the data. Raises InputError as `compile_pattern`, DatasetError
    if the pattern does not find a patient in every path, or finds the same patient in all of them.
    """
    pattern = compile_pattern(text)
    matches = [pattern.search(path) for path in paths]
    missed = [path for path, match in zip(paths, matches, strict=True) if not (match and match["patient"])]
    if missed:
        raise DatasetError(
            f"--patient-pattern {text!r} finds no patient in {len(missed)} of {len(paths)} files of {source}, such as "
            f"{missed[0]!r}. The pattern must match the path of every file, relative to the data. Extend it, or give "
            "--groups."
        )
    found = [match for match in matches if match]
    subjects = [match["patient"] for match in found]
    if len(set(subjects)) < 2:
        raise DatasetError(
            f"--patient-pattern {text!r} finds the same patient {subjects[0]!r} in all {len(paths)} files of {source}. "
            f"Expected one id for each patient; the first path is {paths[0]!r}."
        )
    named = pattern.groupindex
    sessions = [match["session"] if "session" in named else None for match in found]
    positions = None
    if "slice" in named:
        numbers = [match["slice"] or "" for match in found]
        positions = np.array([int(one) if one.isdecimal() and len(one) < 10 else -1 for one in numbers], np.int64)
    description = ", ".join(f"{name} {found[0][name]!r}" for name in _GROUPS if name in named and found[0][name])
    origin = f"--patient-pattern: {PurePosixPath(paths[0]).name} is {description}"
    return Ids("pattern", origin, numbered(subjects), session_numbers(subjects, sessions), positions)
