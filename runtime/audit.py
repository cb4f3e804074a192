"""One JSON line a prediction, without patient data, each line holding the digest of the one before it.

    python -m runtime.audit verify LOG [--head DIGEST]

The first line holds the log's random salt. A later line says when, what was answered, by which model, backend and
precision, and `pixels`: SHA-256 of the salt and the decoded pixels. With the image at hand one can show that it is the
one that was asked about; from the log alone nobody can tell whose it was. File names and reasons, which may hold names,
stay out. `previous` is the SHA-256 of the line before: no line can be changed, removed or put in between without every
later one showing it. Only the end can be cut off unseen, so keep the head that `verify` prints somewhere else.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from PIL import Image

from runtime.command import exit_status
from runtime.errors import AuditError
from runtime.prediction import Prediction

try:
    import fcntl
except ImportError:  # pragma: no cover  Windows
    fcntl = None  # type: ignore[assignment]

_FORMAT = 1
_TAIL = 1 << 16  # longer than any line this module writes


class AuditLog:
    """An append-only log that threads and processes of one machine may share."""

    def __init__(self, path: Path) -> None:
        """Opens the log at `path`, or begins it. Raises AuditError when it cannot be written or is no audit log."""
        if fcntl is None:  # pragma: no cover
            raise AuditError("The audit log needs POSIX file locks, which this system does not have.")
        self.path = path
        self._turn = threading.Lock()  # a POSIX lock does not keep the threads of one process apart
        try:
            with self._turn, path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                first = file.readline()
                if not first:
                    first = _line({"neurostage_audit": _FORMAT, "begun": _now(), "salt": os.urandom(16).hex()})
                    file.write(first)
        except OSError as error:
            raise AuditError(
                f"{path} cannot be written ({error.strerror}). Give a file in a folder that can."
            ) from error
        self._salt = _salt(first, path)

    def pixels(self, image: Image.Image) -> str:
        """The salted digest by which `record` names an image."""
        return pixels_digest(image, self._salt)

    def record(self, prediction: Prediction, pixels: str | None) -> None:
        """Append one line. pixels: as the method of that name gives it; None for an image that could not be read.

        Raises AuditError: a prediction that could not be recorded must not be used.
        """
        entry = {
            "time": _now(),
            "pixels": pixels,
            "status": prediction.status,
            "code": prediction.code,
            "label": prediction.label,
            "probabilities": {name: round(value, 6) for name, value in prediction.probabilities.items()},
            "model": prediction.model_digest,
            "backend": prediction.backend,
            "precision": prediction.precision,
        }
        try:
            with self._turn, self.path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL))
                tail = file.read()
                # A process that died while writing leaves half a line: it stays, by itself, and verify names it.
                mend = b"" if tail.endswith(b"\n") else b"\n"
                last = tail.rstrip(b"\n").rsplit(b"\n", 1)[-1]
                file.seek(0, os.SEEK_END)
                file.write(mend + _line({**entry, "previous": hashlib.sha256(last).hexdigest()}))
        except OSError as error:
            raise AuditError(
                f"{self.path} cannot be written ({error.strerror}). The prediction is withheld."
            ) from error


def pixels_digest(image: Image.Image, salt: str) -> str:
    """SHA-256, hexadecimal, of the salt, mode, size and pixels: equal for equal decoded images in one log."""
    head = f"{salt}\0{image.mode}\0{image.size[0]}x{image.size[1]}\0".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()


def verify(path: Path, head: str | None = None) -> tuple[int, str]:
    """How many predictions the log holds, and the digest of its last line.

    head: a digest that `verify` gave before; some line must still have it.
    Raises AuditError naming the first line that was changed, or follows one that was removed.
    """
    previous, count, found = "", 0, head is None
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    _salt(line, path)
                else:
                    _check(line, number, previous, path)
                    count += 1
                previous = hashlib.sha256(line.rstrip(b"\n")).hexdigest()
                found = found or previous == head
    except OSError as error:
        raise AuditError(f"{path} cannot be read ({error.strerror}).") from error
    if not previous:
        raise AuditError(f"{path} is empty: its lines were removed, or it never was an audit log.")
    if not found:
        raise AuditError(f"{path} has no line with the digest {str(head)[:12]}…: lines were removed from its end.")
    return count, previous


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 the log holds, 1 it does not, 2 usage."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m runtime.audit", description="Check an audit log.")
    actions = parser.add_subparsers(required=True)
    action = actions.add_parser("verify", help="recompute the chain of digests")
    action.add_argument("log", type=Path, metavar="LOG", help="what --audit or Predictor(audit=…) wrote")
    action.add_argument("--head", help="a digest printed before, which must still be in the log")
    options = parser.parse_args(argv)
    try:
        count, head = verify(options.log, options.head)
    except AuditError as error:
        print(f"AuditError: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print(f"{options.log} holds {count} predictions, unchanged.\nhead {head}")  # noqa: T201
    return 0


def _check(line: bytes, number: int, previous: str, path: Path) -> None:
    where = f"{path} line {number}"
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise AuditError(f"{where} is not JSON: it was changed, or its process died while writing.") from error
    if not line.endswith(b"\n"):
        raise AuditError(f"{where} has no end: it was cut, or is being written.")
    if not isinstance(entry, dict) or entry.get("previous") != previous:
        raise AuditError(f"{where} does not follow from line {number - 1}: one of them was changed, added or removed.")


def _salt(first: bytes, path: Path) -> str:
    try:
        entry = json.loads(first)
        form, salt = entry["neurostage_audit"], entry["salt"]
    except (ValueError, KeyError, TypeError) as error:
        raise AuditError(
            f"{path} is not an audit log of this runtime. Give another file; it was not touched."
        ) from error
    if form != _FORMAT or not isinstance(salt, str):
        raise AuditError(f"{path} has audit format {form!r}, this runtime writes {_FORMAT}. Begin another file.")
    return salt


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


if __name__ == "__main__":
    sys.exit(exit_status(main))
