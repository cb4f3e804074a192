"""Many clients at once: every good request is answered with exactly what the Predictor says; memory stays flat."""

from __future__ import annotations

import random
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.serving.http_service.running import INFER, in_base64, in_binary, plain, running
from tests.serving.http_service.test_http_protocol import check, rows


class Client:
    """Sends requests of every kind over a connection of its own, which is opened again where the kind ends it."""

    def __init__(self, service, images, expected, seed):
        self.service, self.images, self.expected = service, images, expected
        self.chance, self.seen = random.Random(seed), Counter()
        self.connection = service.connect()

    def run(self, requests: int) -> Counter[str]:
        kinds = ("json", "binary", "form", "invalid", "huge", "slow", "leaves")
        for kind in self.chance.choices(kinds, (40, 25, 20, 9, 2, 2, 2), k=requests):
            getattr(self, kind)()
        self.connection.close()
        return self.seen

    def some(self):
        chosen = [self.chance.randrange(len(self.images)) for _ in range(self.chance.choice((1, 1, 1, 2, 5)))]
        return [self.images[at] for at in chosen], [self.expected[at] for at in chosen]

    def answered(self, reply, kind: str) -> bool:
        """Whether it has predictions; the only other answer to a good request is 503."""
        assert reply.status in (200, 503), reply.body
        if reply.status == 503:
            assert int(reply.headers["retry-after"]) >= 1
            assert reply.error
        self.seen[kind if reply.status == 200 else "503"] += 1
        return reply.status == 200

    def json(self):
        images, expected = self.some()
        reply = self.service.infer(in_base64(*images), connection=self.connection)
        if self.answered(reply, "json"):
            check(rows(reply), expected)

    def binary(self):
        images, expected = self.some()
        more = {"parameters": {"binary_data_output": True}}
        reply = self.service.infer(*in_binary(*images, **more), connection=self.connection)
        if self.answered(reply, "binary"):
            check(rows(reply), expected)

    def form(self):
        images, expected = self.some()
        files = {f"{at}.png": image for at, image in enumerate(images)}
        reply = self.service.predict(files, connection=self.connection)
        if self.answered(reply, "form"):
            assert [plain(entry) for entry in reply.json] == expected

    def invalid(self):
        body = self.chance.choice((b"", b"{", b'{"inputs": []}', b"\xff", b'{"inputs": [{"name": "x"}]}'))
        assert self.service.infer(body, connection=self.connection).status in (400, 503)
        self.seen["invalid"] += 1

    def huge(self):
        reply = self.service.send("POST", INFER, bytes((2 << 20) + 1), connection=self.connection)
        assert reply.status in (413, 503)
        self.seen["huge"] += 1

    def slow(self):
        images, expected = self.some()
        body = str(in_base64(*images)).replace("'", '"').encode()
        with socket.create_connection(("127.0.0.1", self.service.port), timeout=120) as one:
            head = (
                f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            for piece in (head[:20].encode(), head[20:].encode(), body[:50], body[50:]):
                one.sendall(piece)
                self.service.get("/v2/health/live")  # something else in between
            found = b""
            while more := one.recv(65536):
                found += more
        assert found[9:12] in (b"200", b"503"), found[:200]
        self.seen["slow" if found[9:12] == b"200" else "503"] += 1
        if found[9:12] == b"200":
            assert found.count(expected[0]["status"].encode()) >= 1

    def leaves(self):
        images, _ = self.some()
        body = str(in_base64(*images)).replace("'", '"').encode()
        with socket.create_connection(("127.0.0.1", self.service.port), timeout=120) as one:
            head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            one.sendall(head.encode() + body[: self.chance.choice((10, len(body)))])
        self.seen["leaves"] += 1


def load(service, images, expected, clients: int, requests: int, seed: int) -> Counter[str]:
    many = [Client(service, images, expected, seed + number) for number in range(clients)]
    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(lambda client: client.run(requests // clients), many), Counter())


def test_mixed_requests_of_several_clients(service, images, expected):
    seen = load(service, images, expected, clients=8, requests=160, seed=1)
    assert sum(seen.values()) == 160
    assert seen["json"] > 20
    assert seen["503"] == 0  # the queue is larger than what 8 clients send


@pytest.mark.slow
def test_twenty_thousand_requests_of_64_clients(tmp_path, images, expected):
    with running(tmp_path, "--max-body-mb", "2", "--queue-images", "64") as one:
        seen = load(one, images, expected, clients=64, requests=4_032, seed=2)
        before = one.rss()
        seen += load(one, images, expected, clients=64, requests=16_000, seed=3)
        grown = one.rss() - before
        print(f"{dict(seen)}; grown by {grown >> 20} MiB from {before >> 20} MiB after 4,032")  # noqa: T201
        assert sum(seen.values()) >= 20_000
        assert grown < 48 << 20
        assert seen["json"] + seen["binary"] + seen["form"] > 10_000
        one.until(lambda: one.metric("stageproof_queue_images") == 0, "the queue is empty")
        assert one.metric("stageproof_held_bytes") == 0
        assert one.metric('stageproof_dropped_total{why="failed"}') == 0
