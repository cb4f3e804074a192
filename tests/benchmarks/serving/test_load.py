"""The load generator, against a server that does nothing, one that refuses, and none."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

from stageproof.benchmarks.contenders.poisson_arrivals import arrival_times
from stageproof.benchmarks.serving.client.load import LOADS, closed_loop, open_loop, per_image
from stageproof.benchmarks.serving.client.protocols import (
    base64_json,
    base64_list,
    open_inference,
    open_inference_json,
    raw,
)
from stageproof.benchmarks.serving.client.trivial_server import Connection
from stageproof.benchmarks.serving.servers import free_port

REQUESTS = [raw("/").encode(bytes([number]) * 5000) for number in range(3)]


class Refusing(asyncio.Protocol):
    """Answers 503 to whatever comes."""

    def connection_made(self, transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self._transport.close()


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own, for servers."""
    one = asyncio.new_event_loop()
    thread = threading.Thread(target=one.run_forever)
    thread.start()
    yield one
    one.call_soon_threadsafe(one.stop)
    thread.join()
    one.close()


@pytest.fixture(scope="module", params=[Connection, Refusing], ids=["answers", "refuses"])
def server(request, loop) -> Iterator[tuple[str, bool]]:
    """(address of a server, whether it answers)."""
    port = free_port()
    made = asyncio.run_coroutine_threadsafe(loop.create_server(request.param, "127.0.0.1", port), loop).result()
    yield f"http://127.0.0.1:{port}", request.param is Connection
    loop.call_soon_threadsafe(made.close)


@pytest.mark.parametrize("run", [partial(closed_loop, clients=3), partial(open_loop, rate=200, seed=1)])
def test_responses(run, server):
    base, answers = server
    found = asyncio.run(run(base, REQUESTS, seconds=0.25, warm_up=0.05))
    counts = {len(of) for of in (found.latencies_ms, found.ended_s, found.images, found.bodies)}
    assert len(counts) == 1, "an entry for each answer"
    if not answers:
        assert counts == {0}
        assert set(found.errors) <= {"HTTP 503", "ServerDisconnectedError", "ClientOSError"}
        assert found.errors["HTTP 503"] > 0
        return
    assert not found.errors
    assert min(found.latencies_ms) > 0
    assert found.ended_s == sorted(found.ended_s)
    assert 0 <= min(found.ended_s) <= max(found.ended_s) < 0.25, "neither the warm-up nor what came too late"
    assert set(found.images) <= {0, 1, 2}
    assert all(json.loads(body)["label"] == "none" for _, body in found.bodies)


def test_nobody_listens():
    found = asyncio.run(closed_loop(f"http://127.0.0.1:{free_port()}", REQUESTS, 2, 0.1, 0.0))
    assert not found.latencies_ms
    assert sum(found.errors.values()) == found.errors["ClientConnectorError"] > 0


def test_arrivals_are_a_poisson_process():
    due = arrival_times(50, 400, seed=3)
    assert (np.diff(due) > 0).all()
    assert due[0] >= 0
    assert due[-1] < 400
    assert len(due) == pytest.approx(20_000, rel=0.03)
    gaps = np.diff(due)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03), "exponential: evenly spaced arrivals have no spread"
    counts = np.bincount(due.astype(int), minlength=400)
    assert counts.var() == pytest.approx(counts.mean(), rel=0.25)
    assert (arrival_times(50, 400, seed=3) == due).all()
    assert not np.array_equal(arrival_times(50, 400, seed=4)[:5], due[:5])


def test_milliseconds_per_image():
    assert per_image([0.5], 1.0).size == 0
    assert per_image([0.5, 1.0], 2.0).tolist() == [1000.0]
    ended = (np.arange(640) + 1) / 640 * 4.0
    times = per_image(ended, 4.0)
    assert len(times) == 10
    np.testing.assert_allclose(times, 4000 / 640)
    slow = np.concatenate((ended[:320] / 4, 1 + (ended[:320] / 2) * 3))  # the second half takes six times as long
    times = per_image(slow, 4.0)
    assert times[-1] > 2 * times[0]
    assert np.mean(times) == pytest.approx(4000 / 640), "all of the time is in some group"


def test_loads_have_different_names():
    assert len({load.name for load in LOADS}) == len(LOADS)
    assert all(bool(load.clients) != bool(load.share) for load in LOADS)


@pytest.mark.parametrize(
    ("protocol", "body"),
    [
        (raw("/"), {"label": "a", "probabilities": [0.25, 0.75]}),
        (base64_json("/"), {"label": "a", "probabilities": [0.25, 0.75]}),
        (base64_list("/"), [{"label": "a", "probabilities": [0.25, 0.75]}]),
        (
            open_inference_json("m"),
            {"outputs": [{"name": "label", "data": ["a"]}, {"name": "probabilities", "data": [0.25, 0.75]}]},
        ),
    ],
)
def test_json_answers(protocol, body):
    assert protocol.decode({}, json.dumps(body).encode()) == ("a", (0.25, 0.75))
    request = protocol.encode(b"\xff\xd8 image")
    assert request.path.startswith("/")
    assert request.body
    with pytest.raises((ValueError, KeyError, TypeError)):
        protocol.decode({}, b'{"error": "no"}')


def test_binary_tensors():
    protocol = open_inference("m")
    request = protocol.encode(b"\xff\xd8 image")
    length = int(request.headers["Inference-Header-Content-Length"])
    header = json.loads(request.body[:length])
    assert header["inputs"][0]["shape"] == [1]
    assert header["inputs"][0]["parameters"]["binary_data_size"] == len(request.body) - length
    assert request.body[length:] == struct.pack("<I", 8) + b"\xff\xd8 image"
    vectors = open_inference("m", batch_of_vectors=True).encode(b"x")
    assert b'"shape": [1, 1]' in vectors.body
    tensors = struct.pack("<2f", 0.25, 0.75) + struct.pack("<I", 1) + b"a"
    outputs = [
        {"name": "probabilities", "datatype": "FP32", "parameters": {"binary_data_size": 8}},
        {"name": "label", "datatype": "BYTES", "parameters": {"binary_data_size": 5}},
    ]
    head = json.dumps({"outputs": outputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    assert protocol.decode(headers, head + tensors) == ("a", (0.25, 0.75))
    with pytest.raises((ValueError, struct.error)):
        protocol.decode(headers, head + tensors[:-3])
