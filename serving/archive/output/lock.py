"""One runner per output: a lock that the system releases when the process ends, however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stageproof.runtime.errors import InputError
from stageproof.serving.archive.output.files import not_written
from stageproof.serving.archive.output.plan import private

try:
    import fcntl
except ImportError:  # pragma: no cover  Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """While it lasts, no other runner works on `out`. Raises InputError if one does already, ArchiveError if the lock
    file cannot be made.

    flock(2), which also holds between machines on file systems that support it (NFS 4, Lustre with -o flock). Two
    runners on one that does not would write the same parts, each whole.
    """
    path = private(out) / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise not_written(path, error) from error
    try:
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise InputError(
                    f"another process is scoring into {out}. Wait until it ends, or give another --out."
                ) from error
        yield
    finally:
        os.close(descriptor)
