"""Sockets of a tree of processes, as Linux shows them in /proc."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"


@dataclass(frozen=True)
class Socket:
    """One Internet socket."""

    protocol: str
    address: str
    port: int
    remote: str
    listens: bool

    @property
    def is_local(self) -> bool:
        """Whether no other machine can reach it, and it reaches none."""
        ends = [self.address] if self.listens or self.protocol.startswith("udp") else [self.address, self.remote]
        return all(_is_loopback(end) for end in ends)


def tree(root: int) -> list[int]:
    """Process ids of `root` and everything below it."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(status.parent.name)] = int(fields[1])
    found = [root]
    for one in found:
        found += [pid for pid, parent in parents.items() if parent == one]
    return found


def sockets(pids: list[int]) -> set[Socket]:
    """Internet sockets that any of the processes has open."""
    inodes = set()
    for pid in pids:
        try:
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                name = str(descriptor.readlink())
                if name.startswith("socket:["):
                    inodes.add(name[8:-1])
        except OSError:
            continue
    found = set()
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        table = Path(f"/proc/net/{protocol}")
        for line in table.read_text().splitlines()[1:] if table.exists() else []:
            fields = line.split()
            if fields[9] in inodes:
                (address, port), (remote, _) = (_end(fields[n]) for n in (1, 2))
                found.add(Socket(protocol, address, port, remote, fields[3] == _LISTEN))
    return found


def _end(text: str) -> tuple[str, int]:
    """``0100007F:1F90`` → ("127.0.0.1", 8080): words of 32 bits in the machine's order (proc(5))."""
    digits, _, port = text.partition(":")
    words = b"".join(bytes.fromhex(digits[at : at + 8])[::-1] for at in range(0, len(digits), 8))
    return str(ipaddress.ip_address(words)), int(port, 16)


def _is_loopback(address: str) -> bool:
    one = ipaddress.ip_address(address)
    mapped = getattr(one, "ipv4_mapped", None)
    return (mapped or one).is_loopback
