"""Verification of an audit log: every line against the key, the head file, and an anchor stored elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stageproof.runtime.audit import chain
from stageproof.runtime.audit.chain import Key, State
from stageproof.runtime.errors import AuditError
from stageproof.runtime.system.regular_files import open_regular


@dataclass(frozen=True)
class Report:
    """Result of `check` for a log that passed."""

    state: State
    key: Key | None
    """None for a log of version 0.1: anybody with write access can have replaced all of it undetected."""
    path: Path
    unfinished: int = 0
    """Bytes of an incomplete last line: its process was killed, or is still writing it."""

    @property
    def anchor(self) -> str:
        """As `AuditLog.anchor`."""
        return chain.anchor_of(self.state)

    def __str__(self) -> str:
        lines = [f"{self.path} holds {self.state.predictions} predictions, unchanged."]
        if self.key is None:
            lines.append(
                "unkeyed: a log of version 0.1; anybody with write access can have replaced all of it undetected"
            )
        else:
            lines.append(f"keyed: {self.key.path}, key {self.key.name}")
        if self.state.recovered:
            lines.append(f"recovered: {self.state.recovered} lines left incomplete by killed processes")
        if self.unfinished:
            lines.append(f"unfinished: the last line, {self.unfinished} bytes, is incomplete and not counted")
        return "\n".join([*lines, f"anchor {self.anchor}", f"head {self.state.digest}"])


def verify(path: Path, head: str | None = None, key: Path | None = None) -> tuple[int, str]:
    """Number of predictions in the log, and digest of its last line. As `check`, which returns more details."""
    report = check(path, head=head, key=key)
    return report.state.predictions, report.state.digest


def check(path: Path, *, head: str | None = None, anchor: str | None = None, key: Path | None = None) -> Report:
    """Verify every line of the log against its key and its head file.

    head: digest printed earlier, which the log must still contain.
    anchor: earlier value of `AuditLog.anchor` or `Report.anchor`; the log up to that point must be unchanged.
    Raises AuditError naming the first line that was changed, or before which lines were removed.
    """
    found = {"head": head is None, "anchor": anchor is None}
    count, digest = _parsed(anchor) if anchor else (0, "")
    expected = State()

    def seen(state: State) -> None:
        found["head"] = found["head"] or state.digest == head
        found["anchor"] = found["anchor"] or (state.predictions, state.digest) == (count, digest)
        if expected.lines == state.lines and expected.digest != state.digest:
            raise chain.not_following(path, state.lines)

    try:
        with open_regular(path) as file:
            first = file.readline()
            if not first:
                raise AuditError(f"{path} is empty: its lines were removed, or it is not an audit log.")
            start = State().after(first.rstrip(b"\n"))
            begun = chain.first_line(first, path)
            used = None
            if begun["stageproof_audit"] == chain.UNKEYED:
                _never_keyed(path, key)
                seen(start)
                state, left = chain.unkeyed(file, start, path, seen)
            else:
                used = chain.key_of(begun, first, path, key)
                expected = chain.read_head(path, begun["salt"], used)
                seen(start)
                state, left = chain.follow(file, start, used, path, seen)
    except OSError as error:
        raise AuditError(f"{path} cannot be read ({error.strerror}).") from error
    if state.lines < expected.lines and left is not None and left.endswith(b"}"):
        raise chain.not_following(path, state.lines + 1)
    if state.lines < expected.lines:
        raise AuditError(
            f"{path} holds {state.predictions} predictions, but {chain.head_path(path)} records "
            f"{expected.predictions}: lines were removed from its end."
        )
    if not found["head"]:
        raise AuditError(f"{path} has no line with the digest {str(head)[:12]}…: lines were removed from its end.")
    if not found["anchor"]:
        raise AuditError(
            f"{path} holds {state.predictions} predictions and does not match the anchor, which has {count}: lines "
            "were removed from its end, or it was rewritten."
        )
    return Report(state, used, path, len(left or b""))


def _parsed(anchor: str) -> tuple[int, str]:
    count, _, digest = anchor.partition(":")
    if not count.isdigit() or not digest:
        raise AuditError(f"the anchor is {anchor!r}, expected N:DIGEST as verify prints it.")
    return int(count), digest


def _never_keyed(path: Path, key: Path | None) -> None:
    """Raise AuditError for a log of version 0.1 beside the key or head file of a keyed log: it was substituted."""
    others = [other for other in (chain.head_path(path), Path(f"{path}.key")) if other.exists()]
    if key is not None or others:
        raise AuditError(
            f"{path} is a log without a key, but {key or others[0]} belongs to a log with a key: the log was replaced. "
            "To verify a log of version 0.1, give no key and move it to a folder without these files."
        )
