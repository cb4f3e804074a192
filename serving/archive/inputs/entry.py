"""`Entry`: one input of an archive, a file or a member of a tar or zip file."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    """One input."""

    path: str
    """Of the file or of the container, as it was given or found; a URL if it has a protocol (``s3://…``)."""
    member: str | None = None
    """Name within a tar or zip file."""
    offset: int | None = None
    """Position of a tar member's content in bytes."""
    size: int | None = None
    """Bytes, when it was listed; None if unknown."""
    modified: int | None = None
    """Modification time of a local file or container in nanoseconds, when it was listed."""
    patient: str | None = None
    """Patient id of a table; None: that of a DICOM header, if there is one."""

    @property
    def name(self) -> str:
        """``PATH`` or ``CONTAINER!MEMBER``."""
        return self.path if self.member is None else f"{self.path}!{self.member}"


@dataclass
class Skipped:
    """Files that were found and are no inputs, counted by kind."""

    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, count: int = 1) -> None:
        """Count files of a kind."""
        if count:
            self.kinds[kind] += count


def is_url(path: str) -> bool:
    """Whether `path` names a protocol, as in ``s3://bucket/folder``."""
    return "://" in path


def local(path: str, folder: str) -> str:
    """The absolute local path. folder: absolute, the working folder in which the inputs were listed."""
    return os.path.join(folder, path)  # noqa: PTH118  names that are not UTF-8, at 10 million inputs
