"""Keeps names and paths of this machine out of an upload: a public form of `run.json`, and a search for what is left.

The other files of a run and those of a bundle are written without such names (`train.runs.pseudonyms`,
`export.bundle.redaction`). The search finds a file that is not, such as one of an early version.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from stageproof.runtime.errors import InputError
from stageproof.train.runs.pseudonyms import ABSOLUTE_PATH, public_source, with_texts

_OPTIONS = {"data": "<data>", "groups": "<groups>", "out": "<run>", "patient_pattern": "<pattern>"}
"""Options of a run that name data, files or patients → what is uploaded in their place."""
_FRACTION = re.compile(r"\d+/\d+")
_FILE = re.compile(
    r".*\.(?:bin|ckpt|csv|h5|json|npz|onnx|parquet|pkl|pt|pth|safetensors|toml|ts|tsv|txt|ya?ml|zip)", re.IGNORECASE
)
_URL = re.compile(r"https?://[^\s\"')>]+")
_WINDOWS_PATH = re.compile(r"(?<![\w])[A-Za-z]:\\+(?:Users|home)\\+[^\s\"']+", re.IGNORECASE)
_WORD = re.compile(r"[^\s\"'`<>|,;()\[\]{}]+")
_SHORTEST = 5
"""Minimum length of a name that is searched for: shorter ones also occur as other words."""


def public_record(record: dict[str, Any], run: Path) -> dict[str, Any]:
    """A copy of the content of `run.json` without paths, and without the names of data and run that the user chose."""
    options = dict(record.get("options") or {})
    words = {str(run): "<run>", str(run.resolve()): "<run>"}
    for key, value in options.items():
        if isinstance(value, str) and not _FRACTION.fullmatch(value) and (key in _OPTIONS or _is_path(value)):
            words[value] = options[key] = _OPTIONS.get(key, f"<{key}>")
    data = {**record["data"], "source": public_source(str(record["data"]["source"]))}
    longest_first = sorted((word for word in words if len(word) >= _SHORTEST), key=len, reverse=True)

    def without(text: str) -> str:
        for word in longest_first:
            text = text.replace(word, words[word])
        return _WINDOWS_PATH.sub("<path>", ABSOLUTE_PATH.sub("<path>", text))

    public: dict[str, Any] = with_texts({**record, "options": options, "data": data}, without)
    return public


def _is_path(value: str) -> bool:
    """Whether the value of an option is likely a path: it has a separator, or the suffix of a file."""
    return "/" in value or "\\" in value or _FILE.fullmatch(value) is not None


def assert_nothing_private(files: Iterable[tuple[str, Callable[[], str]]], names: Iterable[str], advice: str) -> None:
    """Raise InputError, naming the file, if a text contains one of `names`, or an absolute path.

    files: name and a function that returns its text. names: of slices, as recorded by a run. advice: last sentence of
    the message.
    """
    words = _spellings(names)
    broken = [word for word in words if not _WORD.fullmatch(word)]  # such as a name with spaces
    for file, text in files:
        content = _URL.sub("", text())
        if found := ABSOLUTE_PATH.search(content) or _WINDOWS_PATH.search(content):
            raise InputError(f"{file} contains a path of a machine, {found[0][:80]}. Nothing was uploaded. {advice}")
        hits = words.intersection(word.strip(".:") for word in _WORD.findall(content))
        hits.update(word for word in broken if word in content)
        if hits:
            raise InputError(f"{file} contains the name of a slice, {min(hits)[:80]}. Nothing was uploaded. {advice}")


def _spellings(names: Iterable[str]) -> set[str]:
    """The names, and their last parts with and without suffix, as far as they cannot be mistaken for other words."""
    found: set[str] = set()
    for name in names:
        path = PurePosixPath(name)
        found |= {name, path.name, path.stem}
    return {
        word for word in found if len(word) >= _SHORTEST and re.search(r"[^\W\d]", word) and re.search(r"\d|\W|_", word)
    }
