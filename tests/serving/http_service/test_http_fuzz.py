"""Mutated requests: each is answered, refused with 4xx or 503, or the connection closed; never another 5xx."""

from __future__ import annotations

import contextlib
import random
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest

from tests.runtime import bombs
from tests.serving.http_service.running import INFER, form, in_base64, in_binary, mixed
from tests.serving.http_service.test_http_uploads import zipped

HOST = b"Host: localhost\r\nConnection: close\r\n"


@cache
def seeds() -> list[bytes]:
    """Valid requests, and some with bombs."""
    import json

    images = mixed(2)[:7]
    text = json.dumps(in_base64(*images[:3], id="x", outputs=[{"name": "label"}])).encode()
    data, blob = in_binary(*images[:3], parameters={"binary_data_output": True})
    head = json.dumps(data).encode()
    pixels = json.dumps(
        {"inputs": [{"name": "pixels", "shape": [2, 3, 3], "datatype": "UINT8", "data": list(range(18))}]}
    ).encode()
    files, kind = form({"a.png": images[0], "b.dcm": images[-1]})
    bomb, _ = form({"a.zip": zipped({"a.png": bytes(1 << 21), "b.png": images[0]})})
    study, _ = form({"a.zip": zipped({f"{at}.png": image for at, image in enumerate(images)}), "b.png": images[1]})
    bad, _ = form(dict([*bombs.refused().items()][:6]))

    def post(path: str, body: bytes, *headers: str) -> bytes:
        lines = "".join(f"{line}\r\n" for line in headers)
        start = f"POST {path} HTTP/1.1\r\n".encode() + HOST + lines.encode()
        return start + b"Content-Length: %d\r\n\r\n" % len(body) + body

    return [
        post(INFER, text),
        post(INFER, pixels),
        post(INFER, head + blob, f"Inference-Header-Content-Length: {len(head)}"),
        post("/predict", files, f"Content-Type: {kind}"),
        post("/predict", bad, f"Content-Type: {kind}"),
        post("/studies", study, f"Content-Type: {kind}"),
        post("/studies", bomb, f"Content-Type: {kind}"),
        b"GET /v2/models/stageproof HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /metrics HTTP/1.1\r\n" + HOST + b"\r\n",
    ]


PIECES = (
    *(b"\0", b"\xff", b"\r\n", b"\r\n\r\n", b"-1", b"0", b"99999999999999999999", b"null", b"[]", b"{}", b'"', b"\\"),
    *(
        b"NaN",
        b"1e999",
        b"true",
        b'"image"',
        b'"pixels"',
        b'"BYTES"',
        b'"UINT8"',
        b'"\\ud800"',
        b"[" * 50,
        b"PK\x03\x04",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\n",
        b"Expect: 100-continue\r\n",
        b"Content-Encoding: gzip\r\n",
    ),
    *(
        b"filename=",
        b"boundary=",
        b"--xyzzy\r\n",
        b"Upgrade: websocket\r\n",
        b"X-Request-ID: \xff\r\n",
        b"Host: evil\r\n",
    ),
)


def mutated(request: bytes, chance: random.Random) -> bytes:
    """The request with 1 to 4 changes; half of them keep a Content-Length that fits."""
    found = bytearray(request)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(found) + 1)
        if chance.random() < 0.4:  # where the structure is
            at = min(at, chance.randrange(400))
        length = chance.choice((0, 1, 1, 2, 8, 200))
        how = chance.randrange(4)
        if how == 0:
            found[at : at + length] = chance.choice(PIECES)
        elif how == 1:
            found[at : at + length] = chance.randbytes(length)
        elif how == 2:
            del found[at : at + length]
        else:
            found[at:at] = found[at : at + length]
    head, gap, body = bytes(found).partition(b"\r\n\r\n")
    if gap and chance.random() < 0.5:
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
        head = b"\r\n".join([*lines, b"Content-Length: %d" % len(body)])
    return head + gap + body


def send(port: int, request: bytes) -> int:
    """The status of the answer; 0 if there is none within a second, as for a request that is cut off."""
    found = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one, contextlib.suppress(OSError):
        one.sendall(request)
        one.settimeout(1)
        while more := one.recv(65536):
            found += more
    return int(found.split(b" ", 2)[1]) if found.startswith(b"HTTP/1.1 ") else 0


def fuzz(service, count: int, seed: int) -> Counter[int]:
    chance, valid, statuses = random.Random(seed), seeds(), Counter()
    requests = [mutated(chance.choice(valid), chance) for _ in range(count)]
    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda request: send(service.port, request), requests))
    for number, (request, status) in enumerate(zip(requests, answers, strict=True)):
        assert status < 500 or status == 503, (number, status, request[:600], service.log[-2000:])
        statuses[status] += 1
    return statuses


def test_the_seeds_are_answered(service):
    assert [send(service.port, request) for request in seeds()] == [200, 200, 200, 200, 200, 200, 413, 200, 200]


def test_mutated_requests_are_answered_or_refused(service, expected, images):
    statuses = fuzz(service, 150, seed=1)
    assert statuses[200] > 3
    assert statuses[400] > 30
    assert service.predict({"a.png": images[0]}).json[0]["label"] == expected[0]["label"]
    assert "failed (" not in service.log


@pytest.mark.slow
def test_ten_thousand_mutated_requests(service, expected, images):
    statuses = fuzz(service, 2000, seed=2)
    before = service.rss()
    statuses += fuzz(service, 8000, seed=3)
    grown = service.rss() - before
    print(f"statuses {dict(statuses)}; grown by {grown >> 20} MiB from {before >> 20} MiB after 2,000")  # noqa: T201
    assert grown < 48 << 20
    assert service.predict({"a.png": images[0]}).json[0]["label"] == expected[0]["label"]
    assert "failed (" not in service.log


def test_the_fuzzer_makes_what_it_says():
    chance = random.Random(0)
    assert len({mutated(seeds()[0], chance) for _ in range(50)}) == 50
