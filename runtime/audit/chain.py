"""The lines of an audit log: how each is bound to the one before it by a key, and how all of them are checked.

A line is a JSON object that ends with `previous`, SHA-256 of the line before, and `mac`, HMAC-SHA256 (RFC 2104) of the
line without it. Beside the log, `LOG.head` says with a MAC of its own how long the log is, and how its last line
begins anew. docs/AUDIT_LOG.md says what that shows and what it cannot.
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
"""Format of version 0.1, without keys: it is still verified, and not written any more."""
KEY_VARIABLE = "STAGEPROOF_AUDIT_KEY"
"""Environment variable with the path of the key file, where no other way names one."""
_FORMER_VARIABLE = "NEUROSTAGE_AUDIT_KEY"

_MAC = b',"mac":"'
_MAC_BYTES = len(_MAC) + 64 + 2
_HEAD_BYTES = 512  # a sector, which disks write as a whole
_KEY_BYTES = (32, 4096)


@dataclass(frozen=True)
class State:
    """How far a log goes."""

    size: int = 0
    """Bytes."""
    lines: int = 0
    predictions: int = 0
    digest: str = ""
    """SHA-256 of the last line, hexadecimal."""
    recovered: int = 0
    """Lines that a process which died left unfinished, and a later one recorded as such."""

    def after(self, line: bytes, *, predictions: int = 0, recovered: int = 0) -> State:
        """The state after one more line. line: without its end."""
        return State(
            self.size + len(line) + 1,
            self.lines + 1,
            self.predictions + predictions,
            sha256(line),
            self.recovered + recovered,
        )


@dataclass(frozen=True)
class Key:
    """What signs the lines."""

    secret: bytes
    path: Path

    @property
    def name(self) -> str:
        """16 hexadecimal digits by which a log names its key; they tell nothing about it."""
        return self.mac(b"neurostage audit key")[:16]  # the former name: logs begun under it keep their key's

    def mac(self, data: bytes) -> str:
        """HMAC-SHA256, hexadecimal."""
        return hmac.new(self.secret, data, hashlib.sha256).hexdigest()


def key_path(log: Path, given: Path | None) -> Path:
    """The key file of a log: the one given, else the environment's, else `LOG.key`."""
    if given is None and KEY_VARIABLE not in os.environ and _FORMER_VARIABLE in os.environ:
        raise AuditError(f"{_FORMER_VARIABLE} is set, which is now {KEY_VARIABLE}. Rename it. The log was not touched.")
    return given or Path(os.environ.get(KEY_VARIABLE) or f"{log}.key")


def read_key(path: Path) -> Key:
    """The key in a file: its bytes without surrounding white space. Raises AuditError."""
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
            f"the audit key {path} has {len(secret)} bytes, expected {_KEY_BYTES[0]} to {_KEY_BYTES[1]}. Make one: "
            f"{command('runtime.audit', 'key', 'FILE')}"
        )
    return Key(secret, path)


def make_key(path: Path) -> Key:
    """A new random key in a new file that only its owner may read. Raises AuditError, also where the file exists."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_hex(32).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise AuditError(f"the audit key {path} cannot be made ({error.strerror}).") from error
    return read_key(path)


def signed(entry: dict[str, Any], key: Key) -> bytes:
    """The JSON text of `entry` and its MAC, without an end of line."""
    body = json.dumps(entry, separators=(",", ":")).encode()
    return body[:-1] + _MAC + key.mac(body).encode() + b'"}'


def opened(line: bytes, key: Key) -> dict[str, Any] | None:
    """The entry that `signed` wrote with this key; None for anything else."""
    body, mac = line[:-_MAC_BYTES] + b"}", line[-_MAC_BYTES:]
    if not hmac.compare_digest(mac, _MAC + key.mac(body).encode() + b'"}'):
        return None
    entry = json.loads(body)
    return entry if isinstance(entry, dict) else None


def follow(
    lines: Iterable[bytes], state: State, key: Key, path: Path, seen: Callable[[State], object] = lambda state: None
) -> tuple[State, bytes | None]:
    """The state after `lines`, which continue a log from `state`; and what follows that is no whole line, or None.

    seen: called with the state after each line.
    Raises AuditError naming the first line that was changed, or follows one that was removed.
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
    """What is recorded of a line that a process left unfinished."""
    return {"bytes": len(broken), "sha256": sha256(broken)}


def not_following(path: Path, number: int) -> AuditError:
    """The error for a line that is not the one that was written."""
    return AuditError(
        f"{path} line {number} does not follow from line {number - 1}: it was changed, added, or written with another "
        "key, or lines before it were removed."
    )


def head_path(log: Path) -> Path:
    """The file that says how long the log is."""
    return Path(f"{log}.head")


def read_head(log: Path, salt: str | None, key: Key) -> State:
    """What `write_head` wrote last. salt: of the log; None where the log itself is empty.

    Raises AuditError where it is missing, changed, or of another log.
    """
    path = head_path(log)
    try:
        text = read_regular(path)
    except OSError as error:
        raise AuditError(
            f"{path} cannot be read ({error.strerror}): without it nobody can tell whether lines were removed from the "
            f"end of {log}. Restore it; or keep the log as it is, and begin another."
        ) from error
    entry = opened(text.rstrip(), key)
    if entry is None or salt not in (None, entry.get("log")):
        raise AuditError(
            f"{path} was changed, is damaged, or belongs to another log or key. Restore it; or keep the log as it is, "
            "and begin another."
        )
    return State(**{name: entry[name] for name in ("size", "lines", "predictions", "digest", "recovered")})


def write_head(log: Path, salt: str, state: State, key: Key) -> None:
    """Record how far the log goes, in place. Raises OSError."""
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
    """As `follow`, of a log of version 0.1. Of a line cut short the next one says `previous`, as of any other."""
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
    """The entry that begins a log of format `FORMAT` or `UNKEYED`. Raises AuditError for anything else."""
    try:
        entry = json.loads(line)
        if "neurostage_audit" in entry:  # as version 0.1 began a log
            entry["stageproof_audit"] = entry.pop("neurostage_audit")
        form, salt = entry["stageproof_audit"], entry["salt"]
    except (ValueError, KeyError, TypeError) as error:
        raise AuditError(
            f"{path} is not an audit log of this runtime. Give another file; it was not touched."
        ) from error
    if form not in (UNKEYED, FORMAT) or not isinstance(salt, str):
        raise AuditError(f"{path} has audit format {form!r}, this runtime reads up to {FORMAT}. Upgrade stageproof.")
    return dict(entry)


def key_of(entry: dict[str, Any], line: bytes, path: Path, given: Path | None) -> Key:
    """The key of the log that `line` begins. Raises AuditError where it is another one, or the line was changed."""
    key = read_key(key_path(path, given))
    if entry.get("key") != key.name:
        raise AuditError(
            f"{path} was begun with key {entry.get('key')}, and {key.path} is key {key.name}. Give its own."
        )
    if opened(line.rstrip(b"\n"), key) is None:
        raise AuditError(f"{path} line 1 was changed.")
    return key


def anchor_of(state: State) -> str:
    """``N:DIGEST``: predictions, and SHA-256 of the last line."""
    return f"{state.predictions}:{state.digest}"


def sha256(data: bytes) -> str:
    """Hexadecimal."""
    return hashlib.sha256(data).hexdigest()
