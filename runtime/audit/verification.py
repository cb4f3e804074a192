"""Is an audit log what was written? Every line against its key, its head file, and an anchor kept elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stageproof.runtime.audit import chain
from stageproof.runtime.audit.chain import Key, State
from stageproof.runtime.errors import AuditError
from stageproof.runtime.system.regular_files import open_regular


@dataclass(frozen=True)
class Report:
    """What `check` found."""

    state: State
    key: Key | None
    """None for a log of version 0.1: whoever may write it can have rewritten all of it."""
    path: Path
    unfinished: int = 0
    """Bytes of a last line that has no end: its process died, or is writing it."""

    @property
    def anchor(self) -> str:
        """As `AuditLog.anchor`."""
        return chain.anchor_of(self.state)

    def __str__(self) -> str:
        lines = [f"{self.path} holds {self.state.predictions} predictions, unchanged."]
        if self.key is None:
            lines.append(
                "unkeyed: a log of version 0.1, which whoever may write the file can have rewritten as a whole"
            )
        else:
            lines.append(f"keyed: {self.key.path}, key {self.key.name}")
        if self.state.recovered:
            lines.append(f"recovered: {self.state.recovered} lines that were cut short when their process died")
        if self.unfinished:
            lines.append(f"unfinished: a last line of {self.unfinished} bytes has no end; it is no prediction")
        return "\n".join([*lines, f"anchor {self.anchor}", f"head {self.state.digest}"])


def verify(path: Path, head: str | None = None, key: Path | None = None) -> tuple[int, str]:
    """How many predictions the log holds, and the digest of its last line. As `check`, which says more."""
    report = check(path, head=head, key=key)
    return report.state.predictions, report.state.digest


def check(path: Path, *, head: str | None = None, anchor: str | None = None, key: Path | None = None) -> Report:
    """Reads the whole log and compares every line with what its key and its head file say.

    head: a digest that was printed before; some line must still have it.
    anchor: what `AuditLog.anchor` or `Report.anchor` gave before; the log must still begin as it was then.
    Raises AuditError naming the first line that was changed, or follows one that was removed.
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
                raise AuditError(f"{path} is empty: its lines were removed, or it never was an audit log.")
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
            f"{path} holds {state.predictions} predictions, and {chain.head_path(path)} says {expected.predictions}: "
            "lines were removed from its end."
        )
    if not found["head"]:
        raise AuditError(f"{path} has no line with the digest {str(head)[:12]}…: lines were removed from its end.")
    if not found["anchor"]:
        raise AuditError(
            f"{path} holds {state.predictions} predictions and is not the log of the anchor, which held {count}: lines "
            "were removed from its end, or it was rewritten."
        )
    return Report(state, used, path, len(left or b""))


def _parsed(anchor: str) -> tuple[int, str]:
    count, _, digest = anchor.partition(":")
    if not count.isdigit() or not digest:
        raise AuditError(f"the anchor is {anchor!r}, expected N:DIGEST as verify prints it.")
    return int(count), digest


def _never_keyed(path: Path, key: Path | None) -> None:
    """Refuse a log of version 0.1 in the place of a keyed one."""
    others = [other for other in (chain.head_path(path), Path(f"{path}.key")) if other.exists()]
    if key is not None or others:
        raise AuditError(
            f"{path} is a log without a key, and {key or others[0]} is there for one with a key: it was replaced. A "
            "log of version 0.1 is verified without a key and by itself."
        )
