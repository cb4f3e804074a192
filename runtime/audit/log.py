"""One JSON line a prediction, without patient data, each bound to the one before it by a key.

The first line holds the log's random salt and the name of its key. A later line says when, what was answered, by which
model, backend and precision, and `pixels`: SHA-256 of the salt and the decoded pixels. With the image one can show that
it is the one that was predicted; from the log alone nobody can tell whose it was. File names and reasons, which may
hold names, stay out. `runtime.audit.chain` says how lines are bound, docs/AUDIT_LOG.md what that can and cannot show.
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

__all__ = ["AuditLog", "pixels_digest"]

try:
    import fcntl
except ImportError:  # pragma: no cover  Windows
    fcntl = None  # type: ignore[assignment]

_WAIT_S = 10.0
_LEAST_SPACE = 1 << 20
_BEGINNING = b'{"stageproof_audit":2,"begun":"'


class AuditLog:
    """An append-only log that threads and processes of one machine may share.

    What `record` and `record_all` have written is on the disk when they return (fdatasync).
    """

    def __init__(self, path: Path, key: Path | None = None) -> None:
        """Opens the log at `path`, or begins it, and its key with it where none is named.

        key: file with the key; None takes `runtime.audit.chain.KEY_VARIABLE` of the environment, else `LOG.key`.
        Raises AuditError when it cannot be written, is no audit log, or is shorter than it was.
        """
        if fcntl is None:  # pragma: no cover
            raise AuditError("The audit log needs POSIX file locks, which this system does not have.")
        self.path = path
        self._turn = threading.Lock()  # a POSIX lock does not keep the threads of one process apart
        if path.exists() and not path.is_file():
            raise AuditError(f"{path} is not a regular file. Give a file for the audit log.")
        try:
            with self._turn, open(path, "a+b", opener=_private) as file, _locked(file, path):
                file.seek(0)
                first = file.readline()
                if not first.endswith(b"\n"):
                    first = self._begin(file, key, first)
                begun = chain.first_line(first, path)
                if begun["stageproof_audit"] == chain.UNKEYED:
                    raise AuditError(
                        f"{path} is a log of version 0.1, which has no key. It can still be verified; name another "
                        "file for new predictions."
                    )
                self._salt, self._key = begun["salt"], chain.key_of(begun, first, path, key)
                self._end(file)
            _space_left(path)
        except OSError as error:
            raise AuditError(
                f"{path} cannot be written ({error.strerror}). Give a file in a folder that can."
            ) from error

    @property
    def anchor(self) -> str:
        """``N:DIGEST``: predictions in the log, and SHA-256 of its last line. Kept elsewhere, it shows by `verify` that
        the log still begins as it was then."""
        with self._turn:
            return chain.anchor_of(chain.read_head(self.path, self._salt, self._key))

    def pixels(self, image: Image.Image) -> str:
        """The salted digest by which `record` names an image."""
        return pixels_digest(image, self._salt)

    def record(self, prediction: Prediction, pixels: str | None) -> None:
        """Append one line. pixels: as the method of that name gives it; None for an image that could not be read.

        Raises AuditError: a prediction that could not be recorded must not be used.
        """
        self.record_all([(prediction, pixels)])

    def record_all(self, predictions: Sequence[tuple[Prediction, str | None]]) -> None:
        """As `record`, of several: all lines or none."""
        entries = [_entry(prediction, pixels) for prediction, pixels in predictions]
        try:
            with self._turn, open(self.path, "r+b", buffering=0, opener=_private) as file, _locked(file, self.path):
                state = self._end(file)
                self._append(file, state, entries)
        except OSError as error:
            raise AuditError(
                f"{self.path} cannot be written ({error.strerror}). The prediction is withheld."
            ) from error

    def _begin(self, file: IO[bytes], key: Path | None, cut: bytes) -> bytes:
        """The first line, written. cut: what there is of one whose process died while it wrote that."""
        if cut and not (cut.startswith(_BEGINNING) and chain.head_path(self.path).exists()):
            chain.first_line(b"", self.path)  # which says that this is no audit log
        where = chain.key_path(self.path, key)
        used = chain.read_key(where) if where.exists() or key is not None else chain.make_key(where)
        if chain.head_path(self.path).exists() and (was := chain.read_head(self.path, None, used)).predictions:
            raise AuditError(
                f"{self.path} is empty, and {chain.head_path(self.path)} says that it held {was.predictions} "
                "predictions: they were removed. Restore the log, or name another file."
            )
        file.truncate(0)
        salt = os.urandom(16).hex()
        head = {"stageproof_audit": chain.FORMAT, "begun": _now(), "salt": salt, "key": used.name}
        line = chain.signed(head, used)
        chain.write_head(self.path, salt, State().after(line), used)  # first, so that no log is without it
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())
        _sync_folder(self.path)
        return line + b"\n"

    def _end(self, file: IO[bytes]) -> State:
        """How far the log goes, after what a process that died left behind was recorded as such."""
        state = chain.read_head(self.path, self._salt, self._key)
        size = file.seek(0, os.SEEK_END)
        if size < state.size:
            raise AuditError(
                f"{self.path} has {size} bytes, and {chain.head_path(self.path)} says that it had {state.size}: lines "
                "were removed from its end. Keep it as it is, and begin another file."
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
        end = file.seek(0, os.SEEK_END)
        data = b"" if end == state.size else b"\n"  # after a broken line
        for entry in entries:
            line = chain.signed({**entry, "previous": state.digest}, self._key)
            state = state.after(line, predictions=predictions)
            data += line + b"\n"
        try:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
            file.flush()
            getattr(os, "fdatasync", os.fsync)(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file.fileno(), end)
            raise
        chain.write_head(self.path, self._salt, state, self._key)
        return state


def pixels_digest(image: Image.Image, salt: str) -> str:
    """SHA-256, hexadecimal, of the salt, mode, size and pixels: equal for equal decoded images in one log."""
    head = f"{salt}\0{image.mode}\0{image.size[0]}x{image.size[1]}\0".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()


def _private(path: str, flags: int) -> int:
    """Opened for this user alone where it is new, and without waiting where it is a FIFO."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o600)


@contextlib.contextmanager
def _locked(file: IO[bytes], path: Path) -> Iterator[None]:
    """Alone with the file, among all processes. Raises AuditError where that takes too long."""
    until = time.monotonic() + _WAIT_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise AuditError(f"{path} has been locked by another process for {_WAIT_S:g} s.") from error
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
    """Raise AuditError where a disk that is all but full would withhold the first predictions."""
    status = os.statvfs(path)
    left = status.f_bavail * status.f_frsize
    if left < _LEAST_SPACE:
        raise AuditError(f"{path} cannot be written: its disk has {left} bytes left. Make room, or name another file.")


def _sync_folder(path: Path) -> None:
    """A new file is there after a power failure only if its folder was written too."""
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
