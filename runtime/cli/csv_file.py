"""`CsvFile`: results as CSV, written line by line. An interrupted file can be resumed; other files are not overwritten.

`read_existing` checks the file before anything is loaded, `CsvFile` appends to it.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stageproof.runtime.cli.output import classes_in, columns, csv_line, header, row
from stageproof.runtime.errors import InputError
from stageproof.runtime.prediction import Prediction
from stageproof.runtime.system.regular_files import append, private, read_regular
from stageproof.runtime.text.escapes import cell, from_cell

try:
    import fcntl
except ImportError:  # pragma: no cover  Windows
    fcntl = None  # type: ignore[assignment]

_STATUSES = ("ok", "abstained", "rejected")


@dataclass(frozen=True)
class ExistingRows:
    """The content of an output file that is resumed."""

    models: dict[str, str] = field(default_factory=dict)
    """File name → digest of the model that predicted it."""
    classes: tuple[str, ...] = ()
    """The classes that have a column, in this order."""
    complete: int = 0
    """Length of the complete lines, in bytes."""
    partial: bytes = b""
    """Incomplete last line, if the process was killed while writing it."""


def read_existing(path: Path, *, resume: bool) -> ExistingRows:
    """The rows that are already in `path`. Writes nothing.

    Raises InputError for a file that must not be overwritten or appended to, and if the folder does not exist.
    """
    if not path.parent.is_dir():
        raise InputError(
            f"{path} cannot be written: there is no folder {path.parent}. Create it, or give another --output."
        )
    if not path.exists():
        return ExistingRows()
    if not resume:
        raise InputError(f"{path} exists. Continue it with --resume, or give another --output.")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file. Give another --output.")
    try:
        content = read_regular(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Give another --output.") from error
    if not content:
        return ExistingRows()
    end = _complete_length(content)
    foreign = f"{path} is not a file that --output wrote. It was not modified. Give another --output."
    try:
        rows = list(csv.reader(io.StringIO(content[:end].decode("utf-8"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(foreign) from error
    names = rows.pop(0) if rows else []
    classes = classes_in([from_cell(name) for name in names])
    if classes is None or not content.startswith(header(classes).encode()):
        raise InputError(f"{path} has other columns than --output writes. It was not modified. Give another --output.")
    entries = [dict(zip(columns(classes), values, strict=False)) for values in rows]
    if any(len(values) != len(names) for values in rows) or any(e["status"] not in _STATUSES for e in entries):
        raise InputError(foreign)
    models = {from_cell(entry["file"]): entry["model_digest"] for entry in entries}
    return ExistingRows(models, classes, end, content[end:])


class CsvFile:
    """A CSV file with one line per image, each written as soon as its prediction is available."""

    def __init__(
        self, path: Path, found: ExistingRows, *, model_digest: str, classes: Sequence[str], names: Iterable[str]
    ) -> None:
        """Create `path`, or resume it.

        found: the result of `read_existing`. classes: the model's, in clinical order.
        names: all images of the run; an incomplete last line is moved to FILE.cut only if it belongs to one of them.
        Raises InputError, without modifying the file, if it has columns of other classes, results of another
        model, or cannot be written.
        """
        self.path = path
        self.done = set(found.models)
        self._classes = tuple(classes)
        separate = "Give another --output, to keep them separate."
        if found.complete and found.classes != self._classes:
            raise InputError(
                f"{path} has columns for the classes {', '.join(found.classes)}; this model's are "
                f"{', '.join(self._classes)}. {separate}"
            )
        if set(found.models.values()) - {model_digest}:
            raise InputError(f"{path} has results of another model. {separate}")
        if found.partial and not any(_begins(found.partial, name) for name in names):
            raise InputError(
                f"{path} ends with an incomplete line of none of these images: {_shown(found.partial)}. It was not "
                "modified. Give the images of the interrupted run, or remove that line yourself."
            )
        try:
            self._file = open(path, "r+b" if path.exists() else "xb", buffering=0, opener=private)  # noqa: SIM115
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}. Give another --output.") from error
        try:
            self._begin(found)
        except BaseException:
            self._file.close()
            raise

    def _begin(self, found: ExistingRows) -> None:
        if fcntl is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise InputError(f"{self.path} is being written by another process. Give another --output.") from error
        if self._file.seek(0, os.SEEK_END) != found.complete + len(found.partial):
            raise InputError(f"{self.path} was changed by another process. Give another --output.")
        if found.partial:
            aside = Path(f"{self.path}.cut")
            with self._input_errors(), open(aside, "ab", opener=private) as kept:
                append(kept, found.partial + b"\n", sync=True)
            self._file.truncate(found.complete)
        if not found.complete:
            self._append(header(self._classes))

    def write(self, name: str, prediction: Prediction) -> None:
        """Append one line. Raises InputError on failure; the earlier lines stay complete."""
        self._append(row(name, prediction, self._classes))

    def _append(self, text: str) -> None:
        with self._input_errors():
            append(self._file, text.encode("utf-8", errors="surrogateescape"))

    @contextlib.contextmanager
    def _input_errors(self) -> Iterator[None]:
        """Raise OSError as InputError."""
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written: {error.strerror}. Continue later with --output "
                f"{shlex.quote(str(self.path))} --resume."
            ) from error

    def close(self) -> None:
        """Flush the file to disk (fsync) and close it."""
        with self._input_errors(), contextlib.closing(self._file):
            os.fsync(self._file.fileno())


def _complete_length(content: bytes) -> int:
    """Bytes up to the last line end outside quotes; a quoted file name may contain line ends."""
    end = at = quotes = 0
    for line in content.split(b"\n")[:-1]:
        quotes += line.count(b'"')
        at += len(line) + 1
        if quotes % 2 == 0:
            end = at
    return end


def _begins(cut: bytes, name: str) -> bool:
    """Whether these bytes are the beginning of a line that `row` writes for `name`."""
    start = csv_line([cell(name)])[:-1].encode("utf-8", errors="surrogateescape") + b","
    if len(cut) <= len(start):
        return start.startswith(cut)
    rest = cut[len(start) :]
    statuses = [f"{status},".encode() for status in _STATUSES]
    return cut.startswith(start) and any(s.startswith(rest) or rest.startswith(s) for s in statuses)


def _shown(cut: bytes) -> str:
    return repr(cut[:40].decode("utf-8", errors="replace")) + ("…" if len(cut) > 40 else "")
