"""Several processes that train one model. One alone is a team of one: the same code, and nothing to exchange."""

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

from stageproof.train.distributed.rendezvous import Exchange, connect, is_ours, is_torchrun, private_folder

Value = TypeVar("Value")


@dataclass(frozen=True)
class Team:
    """The processes of a run, seen from one of them."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """On this machine."""
    local_size: int = 1
    node: int = 0
    """Which machine."""
    exchange: Exchange | None = None
    """How Python objects travel between processes of one machine; None: through torch's collectives."""

    @property
    def leader(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This process's part of `count` things; parts are contiguous, in rank order, and differ by at most one."""
        small, extra = divmod(count, self.size)
        start = self.rank * small + min(self.rank, extra)
        return slice(start, start + small + (self.rank < extra))

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The element-wise sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Each gradient becomes its sum over all processes: one exchange, so that small tensors cost no latency."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def gather(self, part: torch.Tensor, count: int) -> torch.Tensor:
        """(count, …) the parts of all processes one after the other, where each has its `share(count)` of them."""
        if self.size == 1:
            return part
        longest = -(-count // self.size)
        padded = part.new_zeros((longest, *part.shape[1:]))
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        shares = [Team(rank, self.size).share(count) for rank in range(self.size)]
        return torch.cat([part[: s.stop - s.start] for part, s in zip(parts, shares, strict=True)])

    def agree(self, value: Value) -> Value:
        """The leader's value, in every process."""
        if self.size == 1:
            return value
        if self.exchange is not None:
            return self.exchange.collect(value, [0])[0]
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def collect(self, value: Value) -> Sequence[Value]:
        """Every process's value, by rank."""
        if self.exchange is not None:
            return self.exchange.collect(value, range(self.size))
        values: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Return when every process is here."""
        if self.size > 1:
            dist.barrier()

    def same_weights(self, model: nn.Module) -> None:
        """Give every process the leader's weights."""
        if self.size > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, 0)


@contextmanager
def join(device_type: str, timeout: timedelta = timedelta(hours=2)) -> Iterator[Team]:
    """The team that `train.launch` or torchrun put this process in, or a team of one outside of them.

    timeout: how long one process may prepare data while the others wait. A process that dies is noticed at once, by
        the launcher.
    """
    if not is_ours() and not is_torchrun():
        yield Team()
        return
    rank, local, size = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
    if device_type == "cuda":
        torch.cuda.set_device(local)
    connect("nccl" if device_type == "cuda" else "gloo", timeout)
    exchange = Exchange(private_folder(), rank, size) if is_ours() else None
    here, node = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ.get("GROUP_RANK", 0))
    try:
        yield Team(rank, size, local, here, node, exchange)
    except BaseException:
        # The others lose their connections to a process that failed. Where the launcher hears its reason first, that
        # is what it reports: the connections go with the process.
        if not is_ours():
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()
