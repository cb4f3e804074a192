"""Connects the processes of a run: through a private folder on one machine, through torchrun on several machines.

One machine: `train.launch` creates a folder that only this user can access. Gloo and NCCL write their addresses to a
file in it (torch's FileStore), and open sockets on the loopback interface only. Python objects are exchanged as files
in the folder, not through sockets, so that nothing received from the network is unpickled.

Several machines: torchrun's stores and torch.distributed's object collectives unpickle whatever is sent to their ports.
They need a network that only trusted machines can reach (docs/SECURITY.md).
"""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from stageproof.runtime.errors import InputError
from stageproof.runtime.text.hints import program

FOLDER = "STAGEPROOF_TEAM_FOLDER"
"""Environment variable: the private folder of the processes that `train.launch` started."""
_ADDRESSES = "addresses"
_ANYWHERE = {"", "0.0.0.0", "::", "*", "0"}


def is_launched() -> bool:
    """Whether `train.launch` started this process."""
    return FOLDER in os.environ


def is_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and not is_launched()


def private_folder() -> Path:
    """The folder that `train.launch` created. Raises InputError if other users can access it."""
    folder = Path(os.environ[FOLDER])
    status = folder.lstat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise InputError(f"{folder} is not private to this user (expected mode 0700). Start {program('train')} again.")
    return folder


def connect(backend: str, timeout: timedelta) -> None:
    """Initialise torch.distributed with RANK and WORLD_SIZE of the environment. backend: ``gloo`` or ``nccl``."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if not is_launched():
        dist.init_process_group(backend, timeout=timeout)
        return
    only_loopback()
    store = dist.FileStore(str(private_folder() / _ADDRESSES), size)
    store.set_timeout(timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)


def only_loopback() -> None:
    """Restrict the sockets of Gloo and NCCL in this process to the loopback interface.

    This overrides environment variables that the user may have set for runs on several machines.
    """
    name = loopback()
    os.environ["GLOO_SOCKET_IFNAME"] = name
    os.environ["NCCL_SOCKET_IFNAME"] = f"={name}"  # "=": exactly this one (NCCL user guide, environment variables)
    os.environ["NCCL_IB_DISABLE"] = "1"
    for variable in ("NCCL_COMM_ID", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(variable, None)


def loopback() -> str:
    """The name of the loopback interface: lo on Linux, lo0 on macOS. Raises InputError if there is none."""
    names = [name for _, name in socket.if_nameindex()]
    for name in ("lo", "lo0"):
        if name in names:
            return name
    raise InputError("This machine has no loopback interface, which several processes need. Use --devices 1.")


def check_network(trusted: bool) -> str | None:
    """A warning about the network that the processes of torchrun use, or None.

    trusted: the user declares the network trusted (--trust-network).
    Raises InputError if the processes are on several machines and MASTER_ADDR is missing or means all interfaces,
    unless `trusted`.
    """
    if not is_torchrun():
        return None
    if int(os.environ["WORLD_SIZE"]) == int(os.environ["LOCAL_WORLD_SIZE"]):
        return (
            "torchrun listens on all network interfaces, and anybody who can reach its port can run code. On "
            f"one machine, use {program('train')} --devices N instead, which listens on the loopback interface only."
        )
    address = os.environ.get("MASTER_ADDR", "")
    if address.strip("[] ") in _ANYWHERE and not trusted:
        raise InputError(
            f"MASTER_ADDR is {address!r}, expected the address of one machine on a network that only trusted machines "
            "can reach: anybody who can reach these ports can run code. Give the address (torchrun --rdzv-endpoint "
            "HOST:PORT), or add --trust-network."
        )
    return None


class Exchange:
    """Exchanges Python objects between processes as files in the private folder.

    Each exchange uses two barriers: all files are written before any is read, and read before any is deleted.
    """

    def __init__(self, folder: Path, rank: int, size: int) -> None:
        self._folder, self._rank, self._size, self._count = folder, rank, size, 0

    def collect(self, value: Any, senders: Sequence[int]) -> list[Any]:
        """The values of the ranks `senders`, in that order; `value` is that of this process."""
        self._count += 1
        own = self._path(self._rank)
        if self._rank in senders:
            with open(own, "xb", opener=_private) as file:
                pickle.dump(value, file, pickle.HIGHEST_PROTOCOL)
        dist.barrier()
        # Safe to unpickle: written by processes of this run into a folder that no other user can access.
        values = [
            value if rank == self._rank else pickle.loads(self._path(rank).read_bytes())  # noqa: S301
            for rank in senders
        ]
        dist.barrier()
        own.unlink(missing_ok=True)
        return values

    def _path(self, rank: int) -> Path:
        return self._folder / f"{self._count}-{rank}.pickle"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)
