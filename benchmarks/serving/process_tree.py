"""A server's process with its descendants: started, paused, measured and ended. Linux only: reads /proc.

Descendants are found by an environment variable that they inherit, because some servers start daemons whose parent is
not the server, and by their parents, because others start processes without an environment.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_MARK = "STAGEPROOF_BENCHMARK"
_TICKS = os.sysconf("SC_CLK_TCK")
_END_S = 8.0
"""Time to end by SIGTERM before SIGKILL."""
_REST_END_S = 2.0
"""The same, of processes that are left when the first one has ended."""


class ProcessTree:
    """A command that is running, in a session of its own; a context manager that ends all its processes."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> None:
        """Start `command` in `folder`; its output goes to `log`. Raises OSError."""
        self._mark = uuid.uuid4().hex
        self.log = log
        with log.open("wb") as file:
            self._first = subprocess.Popen(
                command,
                env={**environment, _MARK: self._mark},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def exit_status(self) -> int | None:
        """Exit status of the first process; None while it runs."""
        return self._first.poll()

    def pids(self) -> list[int]:
        """The processes that are alive."""
        wanted = f"{_MARK}={self._mark}".encode()
        found: set[int] = set()
        children: dict[int, list[int]] = {}
        for folder in _processes():
            with suppress(OSError):
                state, parent = _stat(int(folder.name))[:2]
                if state == "Z":
                    continue
                children.setdefault(int(parent), []).append(int(folder.name))
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.add(int(folder.name))
        left = list(found)
        while left:
            new = set(children.get(left.pop(), ())) - found
            found |= new
            left += new
        return sorted(found)

    def pss(self) -> int:
        """Proportional set size of all processes, in bytes: memory that several share counts once in total."""
        total = 0
        for pid in self.pids():
            with suppress(OSError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
                total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        return total

    def cpu_seconds(self) -> float:
        """CPU time of the processes that are alive, user and system."""
        total = 0
        for pid in self.pids():
            with suppress(OSError):
                total += sum(map(int, _stat(pid)[11:15]))  # utime, stime
        return total / _TICKS

    def pause(self) -> None:
        """Stop all processes, so that they use no CPU while another server is measured."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue after `pause`."""
        self._send(signal.SIGCONT)

    def close(self) -> None:
        """End all processes."""
        self.resume()
        known = {pid: _started(pid) for pid in self.pids()}
        self._first.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._first.wait(_END_S)
        self._end(known, signal.SIGTERM, _REST_END_S)  # what it started and did not end
        self._end(known, signal.SIGKILL, _END_S)
        self._first.wait()

    def _end(self, known: Mapping[int, str], number: signal.Signals, seconds: float) -> None:
        """Send a signal to all processes until they have ended, for at most `seconds`.

        known: process → when it started, of those whose parent may have ended, so that `pids` does not find them.
        """
        until = time.monotonic() + seconds
        while True:
            left = {*self.pids(), *(pid for pid, started in known.items() if started and _started(pid) == started)}
            self._first.poll()
            if not left or time.monotonic() > until:
                return
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(0.05)

    def last_lines(self, count: int = 3) -> str:
        """The end of the log, in one line."""
        text = self.log.read_text(encoding="utf-8", errors="replace").strip() if self.log.exists() else ""
        return " | ".join(text.splitlines()[-count:])[-600:] or "its log is empty"

    def _send(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def __enter__(self) -> ProcessTree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _stat(pid: int) -> list[str]:
    """Fields of proc_pid_stat(5) from the third one on: state, parent, …"""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _started(pid: int) -> str:
    """When the process started, in clock ticks since boot: with its number, it identifies the process. Empty if it has
    ended."""
    with suppress(OSError):
        fields = _stat(pid)
        return "" if fields[0] == "Z" else fields[19]
    return ""


def _processes() -> Iterator[Path]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            yield folder
