"""Results in a CSV file that survive being stopped: begun once, gone on with, and never written over another file."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stageproof.runtime.cli.output import COLUMNS, csv_line, header, row
from stageproof.runtime.errors import InputError
from stageproof.runtime.prediction import Prediction
from stageproof.runtime.system.regular_files import read_regular
from stageproof.runtime.text.escapes import cell, from_cell

try:
    import fcntl
except ImportError:  # pragma: no cover  Windows
    fcntl = None  # type: ignore[assignment]

_STATUSES = ("ok", "abstained", "rejected")


@dataclass(frozen=True)
class Before:
    """What an output file holds before it is gone on with."""

    models: dict[str, str] = field(default_factory=dict)
    """File → digest of the model that answered it."""
    whole: int = 0
    """Bytes of whole lines."""
    cut: bytes = b""
    """What follows them: a line whose process was stopped while it wrote."""


def before(path: Path, *, resume: bool) -> Before:
    """What is in `path` already, before anything is loaded. Changes nothing.

    Raises InputError for a file that must not be overwritten or mixed, and where there can be none.
    """
    if not path.parent.is_dir():
        raise InputError(
            f"{path} cannot be written: there is no folder {path.parent}. Make it, or name another --output."
        )
    if not path.exists():
        return Before()
    if not resume:
        raise InputError(f"{path} exists. Go on with it by --resume, or name another --output.")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file. Name another --output.")
    try:
        content = read_regular(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Name another --output.") from error
    if not content:
        return Before()
    end = _whole(content)
    if not content[:end].startswith(header().encode()):
        raise InputError(f"{path} has other columns than --output writes. Name another one; it was not touched.")
    foreign = f"{path} is not a file that --output wrote. Name another one; it was not touched."
    try:
        rows = list(csv.reader(io.StringIO(content[:end].decode("utf-8"), newline=""), strict=True))[1:]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(foreign) from error
    entries = [dict(zip(COLUMNS, values, strict=False)) for values in rows]
    if any(len(values) != len(COLUMNS) for values in rows) or any(e["status"] not in _STATUSES for e in entries):
        raise InputError(foreign)
    return Before({from_cell(entry["file"]): entry["model_digest"] for entry in entries}, end, content[end:])


class CsvFile:
    """One line for each image, in the file as soon as it was answered."""

    def __init__(self, path: Path, found: Before, *, model_digest: str, names: Iterable[str]) -> None:
        """Begins `path`, or goes on with it.

        found: what `before` gave.
        names: files of which lines will be written, or were; half a line at the end is only cut if it is of one.
        Raises InputError, and leaves the file as it is, where it must not be mixed or cannot be written.
        """
        self.path = path
        self.done = set(found.models)
        if set(found.models.values()) - {model_digest}:
            raise InputError(f"{path} holds results of another model. Name another --output, so that they stay apart.")
        if found.cut and not _is_ours(found.cut, names):
            raise InputError(
                f"{path} ends with half a line that is of none of these images: {_shown(found.cut)}. It was not "
                "touched. Name the images of the run that was stopped, or remove that line yourself."
            )
        try:
            self._file = open(path, "r+b" if path.exists() else "xb", buffering=0, opener=_private)  # noqa: SIM115
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}. Name another --output.") from error
        try:
            self._begin(found)
        except BaseException:
            self._file.close()
            raise

    def _begin(self, found: Before) -> None:
        if fcntl is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise InputError(f"{self.path} is being written by another process. Name another --output.") from error
        if self._file.seek(0, os.SEEK_END) != found.whole + len(found.cut):
            raise InputError(f"{self.path} was changed by another process. Name another --output.")
        if found.cut:
            aside = Path(f"{self.path}.cut")
            with self._guarded(), open(aside, "ab", opener=_private) as kept:
                kept.write(found.cut + b"\n")
                kept.flush()
                os.fsync(kept.fileno())
            self._file.truncate(found.whole)
        if not found.whole:
            self._append(header())

    def write(self, name: str, prediction: Prediction) -> None:
        """Add one line, in one step. Raises InputError where that fails; the lines before it stay whole."""
        self._append(row(name, prediction))

    def _append(self, text: str) -> None:
        end = self._file.seek(0, os.SEEK_END)
        left = memoryview(text.encode("utf-8", errors="surrogateescape"))
        with self._guarded():
            try:
                while left:
                    left = left[self._file.write(left) :]
            except OSError:
                with contextlib.suppress(OSError):
                    self._file.truncate(end)
                raise

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written: {error.strerror}. Go on later with --output "
                f"{shlex.quote(str(self.path))} --resume."
            ) from error

    def close(self) -> None:
        """Finish the file: what was written is on the disk."""
        with self._guarded(), contextlib.closing(self._file):
            os.fsync(self._file.fileno())


def _private(path: str, flags: int) -> int:
    """Opened for this user alone where it is new, and without waiting where it is a FIFO."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o600)


def _whole(content: bytes) -> int:
    """Bytes up to the end of the last line that is not inside quotes, where a file name may hold a line's end."""
    end = at = quotes = 0
    for line in content.split(b"\n")[:-1]:
        quotes += line.count(b'"')
        at += len(line) + 1
        if quotes % 2 == 0:
            end = at
    return end


def _is_ours(cut: bytes, names: Iterable[str]) -> bool:
    """Whether these bytes are what `row` begins with for one of `names`."""
    return any(_begins(cut, name.encode("utf-8", errors="surrogateescape")) for name in names)


def _begins(cut: bytes, name: bytes) -> bool:
    line = csv_line([cell(name.decode("utf-8", errors="surrogateescape"))])
    start = line[:-1].encode("utf-8", errors="surrogateescape") + b","
    if len(cut) <= len(start):
        return start.startswith(cut)
    rest = cut[len(start) :]
    statuses = [f"{status},".encode() for status in _STATUSES]
    return cut.startswith(start) and any(s.startswith(rest) or rest.startswith(s) for s in statuses)


def _shown(cut: bytes) -> str:
    return repr(cut[:40].decode("utf-8", errors="replace")) + ("…" if len(cut) > 40 else "")
