"""`Repository`: a repository of the Hugging Face Hub and a revision of it, written ``hf:OWNER/NAME[@REVISION]``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stageproof.runtime.errors import InputError

PREFIX = "hf:"
DEFAULT_REVISION = "main"
FORM = "hf:OWNER/NAME or hf:OWNER/NAME@REVISION, such as hf:owner/name@main"

_COMMIT = re.compile(r"[0-9a-f]{40}")
# As huggingface_hub.utils.validate_repo_id, so that a mistake is found without the library.
_PART = re.compile(r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?", re.ASCII)
# git-check-ref-format(1), without `..`, `//` and parts that begin with a dot.
_REVISION = re.compile(r"(?!.*(?:\.\.|//|/\.))[\w][\w./+-]*", re.ASCII)
_LONGEST = 96


@dataclass(frozen=True)
class Repository:
    """A repository and a revision of it."""

    name: str
    """OWNER/NAME."""
    revision: str = DEFAULT_REVISION
    """A branch, a tag or a commit."""

    def __str__(self) -> str:
        return f"{PREFIX}{self.name}" + ("" if self.revision == DEFAULT_REVISION else f"@{self.revision}")

    @property
    def is_commit(self) -> bool:
        """Whether the revision is the SHA-1 of a commit, which never changes."""
        return _COMMIT.fullmatch(self.revision) is not None

    def at(self, commit: str) -> str:
        """The repository and the first digits of a commit, for messages."""
        return f"{PREFIX}{self.name} at commit {commit[:12]}"


def parse_reference(text: str) -> Repository:
    """The repository in ``hf:OWNER/NAME[@REVISION]``. Raises InputError for anything else."""
    name, at, revision = text.removeprefix(PREFIX).partition("@")
    if not text.startswith(PREFIX):
        raise InputError(f"{text!r} does not begin with {PREFIX}. Expected {FORM}.")
    if at and not _REVISION.fullmatch(revision):
        raise InputError(f"{text!r} has the revision {revision!r}, expected a branch, a tag or a commit: {FORM}.")
    return Repository(repository_name(name, text), revision or DEFAULT_REVISION)


def repository_name(name: str, text: str = "") -> str:
    """`name`, checked to be OWNER/NAME. text: what the user wrote, for the message. Raises InputError."""
    parts = name.split("/")
    valid = len(parts) == 2 and all(map(_PART.fullmatch, parts)) and len(name) <= _LONGEST
    if not valid or "--" in name or ".." in name or name.endswith(".git"):
        expected = FORM if text else "OWNER/NAME, such as owner/name"
        raise InputError(f"{(text or name)!r} is not the name of a repository of models. Expected {expected}.")
    return name


def branch_name(name: str) -> str:
    """`name`, checked to be that of a branch. Raises InputError."""
    if not _REVISION.fullmatch(name) or _COMMIT.fullmatch(name):
        raise InputError(f"--revision is {name!r}, expected the name of a branch, such as main.")
    return name
