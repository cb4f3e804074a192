"""One running server: started, checked, and measured under each load."""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from stageproof.benchmarks.reports.figures import LEAST_FOR
from stageproof.benchmarks.serving.analysis.record import Cell
from stageproof.benchmarks.serving.client.load import Load, Responses, closed_loop, open_loop
from stageproof.benchmarks.serving.client.protocols import Answer, Protocol
from stageproof.benchmarks.serving.in_process import Expected
from stageproof.benchmarks.serving.peers.pipeline import HOST
from stageproof.benchmarks.serving.process_tree import ProcessTree
from stageproof.benchmarks.serving.servers import OURS, Server
from stageproof.benchmarks.serving.stage_metrics import between, read_metrics
from stageproof.runtime.errors import BackendError

TOLERANCE = 1e-3
"""Largest difference of a probability from the Predictor's: engines differ in the order of additions."""
WRONG = "wrong answer"
_START_S = 120.0
_LONGER = 4
"""How many times as long a load may take that needs enough requests for a p99."""
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Running:
    """A server that answers; a context manager that ends it."""

    def __init__(self, server: Server, images: Sequence[bytes], expected: Sequence[Expected], work: Path) -> None:
        """Start the server, wait until it is ready, and check its answers. Raises BackendError if it cannot be used."""
        self.server = server
        self.base = f"http://{HOST}:{server.port}"
        self._requests = [server.protocol.encode(image) for image in images]
        self._expected = [(label, tuple(by_label[one] for one in server.order)) for label, by_label in expected]
        folder = work / f"{server.name}-files"
        folder.mkdir(exist_ok=True)
        begun = time.perf_counter()
        self.tree = ProcessTree(server.command, server.environment, folder, work / f"{server.name}.log")
        try:
            self._wait_until_ready(begun + _START_S)
            self.start_s = time.perf_counter() - begun
            self._check()
        except BaseException:
            self.tree.close()
            raise

    def cell(self, load: Load, seconds: float, capacity: float, round_: int, rounds: int) -> Cell:
        """The server under one load, after a warm-up of a fifth of it. capacity: images per second, for open loads."""
        rate = None if load.clients else load.share * capacity
        if rate and self.server.name == OURS and load.share == 0.5:  # the aim is about the p99
            seconds = min(max(seconds, 1.1 * LEAST_FOR[0.99] / rounds / rate), _LONGER * seconds)
        warm_up = min(2.0, 0.2 * seconds)
        metrics = read_metrics(self.base) if self.server.name == OURS else {}
        cpu = self.tree.cpu_seconds()
        if rate is None:
            found = asyncio.run(closed_loop(self.base, self._requests, load.clients, seconds, warm_up))
        else:
            found = asyncio.run(open_loop(self.base, self._requests, rate, seconds, round_, warm_up))
        used = self.tree.cpu_seconds() - cpu
        sent = len(found.latencies_ms) * (seconds + warm_up) / seconds
        return Cell(
            self.server.name,
            load.name,
            round_,
            round(seconds, 3),
            *self._checked(found),
            offered_per_s=None if rate is None else round(rate, 3),
            late_ms=round(float(np.median(found.late_ms)), 3) if found.late_ms else None,
            client_cpu=round(found.client_cpu_s / seconds, 4),
            server_cpu_ms=round(used / sent * 1e3, 3) if sent else None,
            pss_bytes=self.tree.pss(),
            stages_ms=between(metrics, read_metrics(self.base)) if metrics else {},
        )

    def _checked(self, found: Responses) -> tuple[list[float], list[float], dict[str, int]]:
        """(latencies, times of completion, errors) of the responses; those with a wrong answer are errors."""
        latencies, ended = [], []
        for position, latency, at, (headers, body) in zip(
            found.images, found.latencies_ms, found.ended_s, found.bodies, strict=True
        ):
            if is_right(self.server.protocol, headers, body, self._expected[position]):
                latencies.append(round(latency, 3))
                ended.append(round(at, 4))
            else:
                found.errors[WRONG] += 1
        return latencies, ended, dict(found.errors)

    def _wait_until_ready(self, until: float) -> None:
        url = self.base + self.server.protocol.ready
        while time.perf_counter() < until:
            if (status := self.tree.exit_status) is not None:
                raise BackendError(f"{self.server.title} ended with {status}: {self.tree.last_lines()}")
            with suppress(OSError), _DIRECT.open(url, timeout=5) as response:
                if response.status == 200:
                    return
            time.sleep(0.1)
        raise BackendError(f"{self.server.title} was not ready after {_START_S:.0f} s: {self.tree.last_lines()}")

    def _check(self) -> None:
        """Every image once, one after another. Raises BackendError if one is answered wrongly."""
        for position, (request, expected) in enumerate(zip(self._requests, self._expected, strict=True)):
            sent = urllib.request.Request(self.base + request.path, request.body, dict(request.headers))
            try:
                with _DIRECT.open(sent, timeout=60) as response:
                    headers, body = response.headers, response.read()
            except urllib.error.HTTPError as error:
                raise BackendError(
                    f"{self.server.title} answered {error.code} to image {position}: {error.read()[:200]!r}"
                ) from error
            except OSError as error:
                raise BackendError(f"{self.server.title} did not answer ({error}): {self.tree.last_lines()}") from error
            if not is_right(self.server.protocol, headers, body, expected):
                raise BackendError(
                    f"{self.server.title} answered image {position} with {body[:200]!r}; expected {expected}."
                )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.tree.close()


def is_right(protocol: Protocol, headers: object, body: bytes, expected: Answer) -> bool:
    """Whether a response has the expected label, and probabilities within `TOLERANCE`."""
    try:
        label, probabilities = protocol.decode(headers, body)  # type: ignore[arg-type]
    except (ValueError, KeyError, TypeError, AttributeError, LookupError):
        return False  # what the server sent is no answer
    if label != expected[0] or len(probabilities) != len(expected[1]):
        return False
    return all(abs(one - other) <= TOLERANCE for one, other in zip(probabilities, expected[1], strict=True))
