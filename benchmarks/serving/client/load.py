"""The load generator: closed loops of clients, and open loops with Poisson arrivals, over HTTP (aiohttp)."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp
import numpy as np

from stageproof.benchmarks.contenders.poisson_arrivals import arrival_times
from stageproof.benchmarks.serving.client.protocols import Request

_TIMEOUT = aiohttp.ClientTimeout(total=30)
"""A request without a response by then is an error."""


_PAUSE_S = 0.02
"""Pause of a client after a failed connection: a server that is gone would be tried thousands of times a second."""


@dataclass(frozen=True)
class Load:
    """One kind of load. clients: a closed loop of so many; share: an open loop at this share of the capacity."""

    name: str
    clients: int = 0
    share: float = 0.0
    weight: float = 1.0
    """Its duration, relative to the others."""


LOADS = (
    Load("1 client", clients=1),
    Load("8 clients", clients=8),
    Load("32 clients", clients=32, weight=1.5),
    Load("30 % load", share=0.3),
    Load("50 % load", share=0.5, weight=2.5),  # the p99 that the aims are about needs most requests
    Load("70 % load", share=0.7, weight=1.5),
)
CAPACITY = "32 clients"
"""The load whose throughput is the capacity that shares relate to."""


@dataclass
class Responses:
    """What came back. The lists have an entry for each request that completed in the measured time, in that order."""

    seconds: float
    """Duration of the measured time, after the warm-up."""
    latencies_ms: list[float] = field(default_factory=list)
    """Closed loop: from sending a request to its last byte. Open loop: from its arrival time, so that a late client
    or a long queue counts."""
    ended_s: list[float] = field(default_factory=list)
    """Time of completion, since the start of the measured time."""
    images: list[int] = field(default_factory=list)
    """Position of the image."""
    bodies: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)
    """Headers and body, to be checked afterwards."""
    errors: Counter[str] = field(default_factory=Counter)
    """What went wrong in place of a response 200 → how often."""
    late_ms: list[float] = field(default_factory=list)
    """Open loop: how long after its arrival time each request was sent."""
    client_cpu_s: float = 0.0
    """CPU time of the load generator in the measured time."""


class _Run:
    """One run against one server."""

    def __init__(self, session: aiohttp.ClientSession, base: str, requests: Sequence[Request], seconds: float) -> None:
        self._session, self._base, self._requests = session, base, requests
        self.found = Responses(seconds)
        self.begun = 0.0

    async def send(self, number: int, since: float | None = None) -> None:
        """Send request `number` and record the response. since: `time.perf_counter()` of its arrival."""
        position = number % len(self._requests)
        request, now = self._requests[position], time.perf_counter()
        try:
            async with self._session.post(
                self._base + request.path, data=request.body, headers=request.headers
            ) as response:
                body = await response.read()
                error = "" if response.status == 200 else f"HTTP {response.status}"
                headers = response.headers
        except (aiohttp.ClientError, asyncio.TimeoutError) as failure:
            error = type(failure).__name__
            await asyncio.sleep(_PAUSE_S)
        ended = time.perf_counter()
        sent = (now if since is None else since) - self.begun
        if error and 0 <= sent < self.found.seconds <= ended - self.begun:
            self.found.errors[error] += 1  # such as a time-out, which lasts longer than the measurement
        if not 0 <= ended - self.begun < self.found.seconds:
            return
        if since is not None:
            self.found.late_ms.append((now - since) * 1e3)
        if error:
            self.found.errors[error] += 1
            return
        self.found.latencies_ms.append((ended - (now if since is None else since)) * 1e3)
        self.found.ended_s.append(ended - self.begun)
        self.found.images.append(position)
        self.found.bodies.append((headers, body))


async def closed_loop(
    base: str, requests: Sequence[Request], clients: int, seconds: float, warm_up: float = 0.5
) -> Responses:
    """Responses to `clients` clients, each of which sends its next request when it has the answer to the last one.

    base: such as ``http://127.0.0.1:8000``. Requests that complete in the warm-up are not recorded.
    """
    async with _session() as session:
        run = _Run(session, base, requests, seconds)
        run.begun = time.perf_counter() + warm_up
        numbers = iter(range(1 << 62))

        async def client() -> None:
            while time.perf_counter() < run.begun + seconds:
                await run.send(next(numbers))

        await _measured(run, warm_up, [asyncio.create_task(client()) for _ in range(clients)])
    return run.found


async def open_loop(
    base: str, requests: Sequence[Request], rate: float, seconds: float, seed: int, warm_up: float = 0.5
) -> Responses:
    """Responses to requests that arrive in a Poisson process of `rate` a second, each on a free connection."""
    async with _session() as session:
        run = _Run(session, base, requests, seconds)
        run.begun = time.perf_counter() + warm_up
        due = arrival_times(rate, warm_up + seconds, seed) + (run.begun - warm_up)

        async def arrivals() -> None:
            sent = []
            for number, moment in enumerate(due):
                await asyncio.sleep(moment - time.perf_counter())
                sent.append(asyncio.create_task(run.send(number, float(moment))))
            await asyncio.gather(*sent)

        await _measured(run, warm_up, [asyncio.create_task(arrivals())])
    return run.found


async def _measured(run: _Run, warm_up: float, tasks: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.sleep(warm_up)
    before = time.process_time()
    await asyncio.sleep(run.begun + run.found.seconds - time.perf_counter())
    run.found.client_cpu_s = time.process_time() - before
    await asyncio.gather(*tasks)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=_TIMEOUT,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )


def rate_of(latencies: Sequence[float], seconds: float) -> float:
    """Responses per second."""
    return len(latencies) / seconds


def per_image(ended_s: Sequence[float], seconds: float, groups: int = 10, least: int = 32) -> np.ndarray:
    """(at most `groups`,) milliseconds per image, each over equally many responses that completed one after another, at
    least `least`. Empty with fewer than two responses."""
    ended = np.sort(np.asarray(ended_s, np.float64))
    if len(ended) < 2:
        return np.empty(0)
    count = max(1, min(groups, len(ended) // least))
    edges = np.linspace(0, len(ended), count + 1).astype(int)
    bounds = np.concatenate(([0.0], ended[edges[1:] - 1]))
    bounds[-1] = seconds
    return np.diff(bounds) / np.diff(edges) * 1e3
