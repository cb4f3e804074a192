"""`AuditLog`: appends one JSON line per prediction, without patient data, to a keyed hash chain.

The first line has the log's random salt and the id of its key. Every later line has the time, prediction, model,
backend, precision, and `pixels`: the SHA-256 of the salt and the decoded pixels. With the image, `pixels` proves which
image was predicted; without it, the log does not identify the patient. File names and reasons are omitted, because
they may contain names. See `runtime.audit.chain` for the line format, docs/AUDIT_LOG.md for what the log proves.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

from PIL import Image

from stageproof.runtime.audit import chain
from stageproof.runtime.audit.chain import State
from stageproof.runtime.errors import AuditError
from stageproof.runtime.prediction import Prediction
from stageproof.runtime.system.regular_files import append, private

__all__ = ["AuditLog", "pixels_digest"]

try:
    import fcntl
except ImportError:  # pragma: no cover  Windows
    fcntl = None  # type: ignore[assignment]

_WAIT_S = 10.0
_LEAST_SPACE = 1 << 20
_BEGINNING = b'{"stageproof_audit":2,"begun":"'


class AuditLog:
    """An append-only log, safe for several threads and processes of one machine.

    `record` and `record_all` return after the lines are on disk (fdatasync).
    """

    def __init__(self, path: Path, key: Path | None = None) -> None:
        """Open the log at `path`, or create it, and its key if `key` is None.

        key: file with the key; None takes the environment variable `runtime.audit.chain.KEY_VARIABLE`, else `LOG.key`.
        Raises AuditError if the log cannot be written, is not an audit log, or was truncated.
        """
        if fcntl is None:  # pragma: no cover
            raise AuditError("The audit log needs POSIX file locks, which this system does not have.")
        self.path = path
        self._turn = threading.Lock()  # flock does not exclude threads of the same process
        if path.exists() and not path.is_file():
            raise AuditError(f"{path} is not a regular file. Give a file for the audit log.")
        try:
            with self._turn, open(path, "a+b", opener=private) as file, _locked(file, path):
                file.seek(0)
                first = file.readline()
                if not first.endswith(b"\n"):
                    first = self._begin(file, key, first)
                begun = chain.first_line(first, path)
                if begun["stageproof_audit"] == chain.UNKEYED:
                    raise AuditError(
                        f"{path} is a log of version 0.1, which has no key. It can still be verified; give another "
                        "file for new predictions."
                    )
                self._salt, self._key = begun["salt"], chain.key_of(begun, first, path, key)
                self._end(file)
            _space_left(path)
        except OSError as error:
            raise AuditError(
                f"{path} cannot be written ({error.strerror}). Give a file in a writable folder."
            ) from error

    @property
    def anchor(self) -> str:
        """``N:DIGEST``: number of predictions in the log, and SHA-256 of its last line. Store it elsewhere: with it,
        `verify` proves that the lines up to this point are unchanged."""
        with self._turn:
            return chain.anchor_of(chain.read_head(self.path, self._salt, self._key))

    def pixels(self, image: Image.Image) -> str:
        """The salted digest of an image, for `record`."""
        return pixels_digest(image, self._salt)

    def record(self, prediction: Prediction, pixels: str | None) -> None:
        """Append one line. pixels: result of the method `pixels`; None for an unreadable image.

        Raises AuditError if writing fails; the prediction must then not be used.
        """
        self.record_all([(prediction, pixels)])

    def record_all(self, predictions: Sequence[tuple[Prediction, str | None]]) -> None:
        """As `record`, for several predictions: writes all lines or none."""
        entries = [_entry(prediction, pixels) for prediction, pixels in predictions]
        try:
            with self._turn, open(self.path, "r+b", buffering=0, opener=private) as file, _locked(file, self.path):
                state = self._end(file)
                self._append(file, state, entries)
        except OSError as error:
            raise AuditError(
                f"{self.path} cannot be written ({error.strerror}). The prediction is withheld."
            ) from error

    def _begin(self, file: IO[bytes], key: Path | None, cut: bytes) -> bytes:
        """Write and return the first line. cut: an incomplete first line left by a killed process, or empty."""
        if cut and not (cut.startswith(_BEGINNING) and chain.head_path(self.path).exists()):
            chain.first_line(b"", self.path)  # raises: not an audit log
        where = chain.key_path(self.path, key)
        used = chain.read_key(where) if where.exists() or key is not None else chain.make_key(where)
        if chain.head_path(self.path).exists() and (was := chain.read_head(self.path, None, used)).predictions:
            raise AuditError(
                f"{self.path} is empty, but {chain.head_path(self.path)} records {was.predictions} predictions: they "
                "were removed. Restore the log, or give another file."
            )
        file.truncate(0)
        salt = os.urandom(16).hex()
        head = {"stageproof_audit": chain.FORMAT, "begun": _now(), "salt": salt, "key": used.name}
        line = chain.signed(head, used)
        chain.write_head(self.path, salt, State().after(line), used)  # before the log, so that no log lacks it
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())
        _sync_folder(self.path)
        return line + b"\n"

    def _end(self, file: IO[bytes]) -> State:
        """The state at the end of the log. An incomplete line of a killed process is first recorded as recovered."""
        state = chain.read_head(self.path, self._salt, self._key)
        size = file.seek(0, os.SEEK_END)
        if size < state.size:
            raise AuditError(
                f"{self.path} has {size} bytes, but {chain.head_path(self.path)} records {state.size}: lines were "
                "removed from its end. Keep it unchanged, and start a new file."
            )
        if size == state.size:
            return state
        file.seek(state.size)
        state, broken = chain.follow(io.BytesIO(file.read()), state, self._key, self.path)
        if broken is not None:
            entry = {"time": _now(), "recovered": chain.remains(broken)}
            return self._append(file, state.after(broken, recovered=1), [entry], predictions=0)
        chain.write_head(self.path, self._salt, state, self._key)
        return state

    def _append(self, file: IO[bytes], state: State, entries: Sequence[dict[str, Any]], predictions: int = 1) -> State:
        data = b"" if file.seek(0, os.SEEK_END) == state.size else b"\n"  # terminates an incomplete line
        for entry in entries:
            line = chain.signed({**entry, "previous": state.digest}, self._key)
            state = state.after(line, predictions=predictions)
            data += line + b"\n"
        append(file, data, sync=True)
        chain.write_head(self.path, self._salt, state, self._key)
        return state


def pixels_digest(image: Image.Image, salt: str) -> str:
    """SHA-256, hexadecimal, of salt, mode, size and pixels: equal for identical decoded images in one log."""
    head = f"{salt}\0{image.mode}\0{image.size[0]}x{image.size[1]}\0".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()


@contextlib.contextmanager
def _locked(file: IO[bytes], path: Path) -> Iterator[None]:
    """Hold the exclusive lock on the file. Raises AuditError if it is not available within `_WAIT_S` seconds."""
    until = time.monotonic() + _WAIT_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise AuditError(
                    f"{path} has been locked by another process for {_WAIT_S:g} s. End that process, or give another "
                    "file."
                ) from error
            time.sleep(0.001)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _entry(prediction: Prediction, pixels: str | None) -> dict[str, Any]:
    return {
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


def _space_left(path: Path) -> None:
    """Raise AuditError if the disk is nearly full, before the first prediction has to be withheld."""
    status = os.statvfs(path)
    left = status.f_bavail * status.f_frsize
    if left < _LEAST_SPACE:
        raise AuditError(f"{path} cannot be written: its disk has {left} bytes left. Free space, or give another file.")


def _sync_folder(path: Path) -> None:
    """Sync the folder of a new file; otherwise the file may be missing after a power failure."""
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
