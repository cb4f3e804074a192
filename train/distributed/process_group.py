"""`ProcessGroup`: collective operations between the processes of a run. A single process is a group of size 1."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from stageproof.train.distributed.rendezvous import Exchange, connect, is_launched, is_torchrun, private_folder

Value = TypeVar("Value")


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, as seen by this process."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Rank among the processes on this machine."""
    local_size: int = 1
    node: int = 0
    """Index of the machine."""
    exchange: Exchange | None = None
    """Transfers Python objects between processes of one machine; None: torch.distributed does."""

    @property
    def leader(self) -> bool:
        """Whether this is rank 0, the process that writes and prints."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This process's part of `count` items. Parts are contiguous and in rank order; sizes differ by at most 1."""
        small, extra = divmod(count, self.size)
        start = self.rank * small + min(self.rank, extra)
        return slice(start, start + small + (self.rank < extra))

    def all_reduce(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over all processes, element by element, in place; returns `values`."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes, with one all-reduce of the concatenated gradients."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def gather(self, part: torch.Tensor, count: int) -> torch.Tensor:
        """(count, …) concatenated parts of all processes. part: the items of this process, as `share(count)`."""
        if self.size == 1:
            return part
        longest = -(-count // self.size)
        padded = part.new_zeros((longest, *part.shape[1:]))
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        shares = [ProcessGroup(rank, self.size).share(count) for rank in range(self.size)]
        return torch.cat([part[: s.stop - s.start] for part, s in zip(parts, shares, strict=True)])

    def broadcast(self, value: Value) -> Value:
        """The value of rank 0, in every process."""
        if self.size == 1:
            return value
        if self.exchange is not None:
            return self.exchange.collect(value, [0])[0]
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def all_gather(self, value: Value) -> Sequence[Value]:
        """The values of all processes, by rank."""
        if self.exchange is not None:
            return self.exchange.collect(value, range(self.size))
        values: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Return when every process has called it."""
        if self.size > 1:
            dist.barrier()

    def broadcast_weights(self, model: nn.Module) -> None:
        """Copy the weights and buffers of rank 0 to every process."""
        if self.size > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, 0)


@contextmanager
def join(device_type: str, timeout: timedelta = timedelta(hours=2)) -> Iterator[ProcessGroup]:
    """Context manager: the process group created by `train.launch` or torchrun, else a group of size 1.

    timeout: how long the others wait while one process prepares the data. The launcher notices at once if a process
        ends.
    """
    if not is_launched() and not is_torchrun():
        yield ProcessGroup()
        return
    rank, local, size = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
    if device_type == "cuda":
        torch.cuda.set_device(local)
    connect("nccl" if device_type == "cuda" else "gloo", timeout)
    exchange = Exchange(private_folder(), rank, size) if is_launched() else None
    here, node = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ.get("GROUP_RANK", 0))
    try:
        yield ProcessGroup(rank, size, local, here, node, exchange)
    except BaseException:
        # Destroying the group breaks the connections of the other processes. Under our launcher this is left to the
        # end of the process, so that the launcher receives the original exception first and reports that one.
        if not is_launched():
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()
