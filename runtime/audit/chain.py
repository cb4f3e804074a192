"""Line format of the audit log: a hash chain authenticated by a key, and the functions that write and verify it.

A line is a JSON object that ends with `previous`, the SHA-256 of the previous line, and `mac`, the HMAC-SHA256
(RFC 2104) of the line without `mac`. A second file, `LOG.head`, records the length of the log and the digest of its
last line, with its own MAC. docs/AUDIT_LOG.md describes which changes are detected and which are not.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import AuditError
from stageproof.runtime.system.regular_files import open_regular, read_regular
from stageproof.runtime.text.hints import command

FORMAT = 2
UNKEYED = 1
"""Format of version 0.1, without keys; it can be verified but is no longer written."""
KEY_VARIABLE = "STAGEPROOF_AUDIT_KEY"
"""Environment variable with the path of the key file, used if no argument gives it."""
_FORMER_VARIABLE = "NEUROSTAGE_AUDIT_KEY"

_MAC = b',"mac":"'
_MAC_BYTES = len(_MAC) + 64 + 2
_HEAD_BYTES = 512  # one disk sector, which is written atomically
_KEY_BYTES = (32, 4096)


@dataclass(frozen=True)
class State:
    """Position in a log: its length and last digest after some line."""

    size: int = 0
    """Bytes."""
    lines: int = 0
    predictions: int = 0
    digest: str = ""
    """SHA-256 of the last line, hexadecimal."""
    recovered: int = 0
    """Incomplete lines left by killed processes and recorded as such by a later process."""

    def after(self, line: bytes, *, predictions: int = 0, recovered: int = 0) -> State:
        """The state after one more line. line: without its line end."""
        return State(
            self.size + len(line) + 1,
            self.lines + 1,
            self.predictions + predictions,
            sha256(line),
            self.recovered + recovered,
        )


@dataclass(frozen=True)
class Key:
    """The key that authenticates the lines."""

    secret: bytes
    path: Path

    @property
    def name(self) -> str:
        """Identifier of the key in a log: 16 hexadecimal digits that do not reveal the key."""
        return self.mac(b"neurostage audit key")[:16]  # former project name, so that existing logs keep their key's id

    def mac(self, data: bytes) -> str:
        """HMAC-SHA256, hexadecimal."""
        return hmac.new(self.secret, data, hashlib.sha256).hexdigest()


def key_path(log: Path, given: Path | None) -> Path:
    """The key file of a log: `given`, else the one in `KEY_VARIABLE`, else `LOG.key`."""
    if given is None and KEY_VARIABLE not in os.environ and _FORMER_VARIABLE in os.environ:
        raise AuditError(
            f"{_FORMER_VARIABLE} is set; this variable is now called {KEY_VARIABLE}. Rename it. The log was not "
            "modified."
        )
    return given or Path(os.environ.get(KEY_VARIABLE) or f"{log}.key")


def read_key(path: Path) -> Key:
    """The key in a file: its bytes without surrounding white space. Raises AuditError if unreadable or invalid."""
    try:
        with open_regular(path) as file:
            secret = file.read(_KEY_BYTES[1] + 1).strip()
    except OSError as error:
        raise AuditError(
            f"the audit key {path} cannot be read ({error.strerror}). Give its path: audit_key=, --audit-key, verify "
            f"--key or {KEY_VARIABLE}."
        ) from error
    if not _KEY_BYTES[0] <= len(secret) <= _KEY_BYTES[1]:
        raise AuditError(
            f"the audit key {path} has {len(secret)} bytes, expected {_KEY_BYTES[0]} to {_KEY_BYTES[1]}. Create one: "
            f"{command('runtime.audit', 'key', 'FILE')}"
        )
    return Key(secret, path)


def make_key(path: Path) -> Key:
    """A new random key, stored in a new file readable by its owner only. Raises AuditError if the file exists."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_hex(32).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise AuditError(f"the audit key {path} cannot be created ({error.strerror}). Give a new file.") from error
    return read_key(path)


def signed(entry: dict[str, Any], key: Key) -> bytes:
    """The JSON text of `entry` with its MAC, without line end."""
    body = json.dumps(entry, separators=(",", ":")).encode()
    return body[:-1] + _MAC + key.mac(body).encode() + b'"}'


def opened(line: bytes, key: Key) -> dict[str, Any] | None:
    """The entry of a line that `signed` wrote with this key; None if the MAC is wrong."""
    body, mac = line[:-_MAC_BYTES] + b"}", line[-_MAC_BYTES:]
    if not hmac.compare_digest(mac, _MAC + key.mac(body).encode() + b'"}'):
        return None
    entry = json.loads(body)
    return entry if isinstance(entry, dict) else None


def follow(
    lines: Iterable[bytes], state: State, key: Key, path: Path, seen: Callable[[State], object] = lambda state: None
) -> tuple[State, bytes | None]:
    """Verify `lines`, which continue a log from `state`. The state after them, and an incomplete last line or None.

    seen: called with the state after each line.
    Raises AuditError naming the first line that was changed, or before which lines were removed.
    """
    broken: bytes | None = None
    for line in lines:
        text = line.rstrip(b"\n")
        entry = opened(text, key) if line.endswith(b"\n") else None
        follows = entry is not None and entry.get("previous") == (state.digest if broken is None else sha256(broken))
        if broken is not None:
            if not follows or entry is None or entry.get("recovered") != remains(broken):
                raise not_following(path, state.lines + 1)
            state = state.after(broken, recovered=1).after(text)
            broken = None
        elif follows and entry is not None and "recovered" not in entry:
            state = state.after(text, predictions=1)
        elif entry is not None:
            raise not_following(path, state.lines + 1)
        else:
            broken = text
            continue
        seen(state)
    return state, broken


def remains(broken: bytes) -> dict[str, Any]:
    """The record of a line that a process left incomplete: its length and digest."""
    return {"bytes": len(broken), "sha256": sha256(broken)}


def not_following(path: Path, number: int) -> AuditError:
    """The error for a line that does not continue the chain."""
    return AuditError(
        f"{path} line {number} does not follow from line {number - 1}: it was changed, added, or written with another "
        "key, or lines before it were removed."
    )


def head_path(log: Path) -> Path:
    """The file that records the length of the log."""
    return Path(f"{log}.head")


def read_head(log: Path, salt: str | None, key: Key) -> State:
    """The state that `write_head` wrote last. salt: the log's; None if the log itself is empty.

    Raises AuditError if the head file is missing, changed, or belongs to another log.
    """
    path = head_path(log)
    try:
        text = read_regular(path)
    except OSError as error:
        raise AuditError(
            f"{path} cannot be read ({error.strerror}). Without it, lines removed from the end of {log} cannot be "
            "detected. Restore it; or keep the log unchanged and start a new one."
        ) from error
    entry = opened(text.rstrip(), key)
    if entry is None or salt not in (None, entry.get("log")):
        raise AuditError(
            f"{path} was changed, is damaged, or belongs to another log or key. Restore it; or keep the log unchanged "
            "and start a new one."
        )
    return State(**{name: entry[name] for name in ("size", "lines", "predictions", "digest", "recovered")})


def write_head(log: Path, salt: str, state: State, key: Key) -> None:
    """Record the state of the log, in place. Raises OSError."""
    entry = {"stageproof_audit_head": FORMAT, "log": salt, **state.__dict__}
    text = signed(entry, key).ljust(_HEAD_BYTES - 1) + b"\n"
    handle = os.open(head_path(log), os.O_WRONLY | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o600)
    try:
        os.pwrite(handle, text, 0)
    finally:
        os.close(handle)


def unkeyed(
    lines: Iterable[bytes], state: State, path: Path, seen: Callable[[State], object]
) -> tuple[State, bytes | None]:
    """As `follow`, for a log of version 0.1. An incomplete line is followed by one with its digest as `previous`."""
    for line in lines:
        text, number = line.rstrip(b"\n"), state.lines + 1
        try:
            entry = json.loads(text)
        except ValueError:
            entry = None
        if not line.endswith(b"\n"):
            return state, text
        if isinstance(entry, dict):
            if entry.get("previous") != state.digest:
                raise not_following(path, number)
            state = state.after(text, predictions=1)
        else:
            state = state.after(text, recovered=1)
        seen(state)
    return state, None


def first_line(line: bytes, path: Path) -> dict[str, Any]:
    """The first entry of a log of format `FORMAT` or `UNKEYED`. Raises AuditError for anything else."""
    try:
        entry = json.loads(line)
        if "neurostage_audit" in entry:  # key of version 0.1
            entry["stageproof_audit"] = entry.pop("neurostage_audit")
        form, salt = entry["stageproof_audit"], entry["salt"]
    except (ValueError, KeyError, TypeError) as error:
        raise AuditError(
            f"{path} is not an audit log of this runtime. It was not modified. Give another file."
        ) from error
    if form not in (UNKEYED, FORMAT) or not isinstance(salt, str):
        raise AuditError(f"{path} has audit format {form!r}, this runtime reads up to {FORMAT}. Upgrade stageproof.")
    return dict(entry)


def key_of(entry: dict[str, Any], line: bytes, path: Path, given: Path | None) -> Key:
    """The key of the log whose first line is `line`. Raises AuditError for another key, or if the line was changed."""
    key = read_key(key_path(path, given))
    if entry.get("key") != key.name:
        raise AuditError(
            f"{path} was started with key {entry.get('key')}, but {key.path} is key {key.name}. Give the log's own key."
        )
    if opened(line.rstrip(b"\n"), key) is None:
        raise AuditError(f"{path} line 1 was changed.")
    return key


def anchor_of(state: State) -> str:
    """``N:DIGEST``: number of predictions, and SHA-256 of the last line."""
    return f"{state.predictions}:{state.digest}"


def sha256(data: bytes) -> str:
    """SHA-256 of `data`, hexadecimal."""
    return hashlib.sha256(data).hexdigest()
