"""Start, stop, another bundle, clients that leave, workers that die: nothing accepted is lost, no answer is wrong."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import re
import signal
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from stageproof.runtime import Predictor
from stageproof.serving.http.__main__ import main
from stageproof.serving.http.inference.errors import Refusal
from stageproof.serving.http.inference.metrics import Metrics
from stageproof.serving.http.inference.service import Service
from stageproof.serving.http.logs import ServiceHandler
from stageproof.serving.http.options import Options
from stageproof.serving.http.process import watch
from tests.runtime import hostile
from tests.serving.conftest import BUNDLE
from tests.serving.http_service.conftest import free_port
from tests.serving.http_service.running import INFER, in_base64, other_bundle, plain, running, says


def test_until_the_self_test_passed_it_is_live_and_not_ready():
    service = Service(Options(BUNDLE), Metrics())
    assert (service.status()["ready"], service.state) == (False, "loading")
    with pytest.raises(Refusal, match="still being loaded") as refused:
        asyncio.run(service.answer([b"x"], service.deadline(None)))
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "2"})


class Wrong(Predictor):
    """A Predictor whose engine computes something else."""

    def self_test(self):
        return replace(super().self_test(), passed=False)


def test_a_bundle_whose_self_test_fails_is_never_used(said):
    makers = [Wrong, Predictor, Wrong]

    def make(path):
        return makers.pop()(path, backend="onnx", threads=1)

    service = Service(Options(BUNDLE), Metrics(), make)
    with pytest.raises(Exception, match="The self-test failed"):
        service.start()
    assert service.state == "loading"
    service.start()
    assert service.state == "ready"
    used = service.loaded
    assert service.replace().outcome == "refused"
    assert service.loaded is used
    assert [line for line in said if "the new bundle was refused" in line and "The self-test failed" in line]
    service.close()
    assert service.status()["state"] == "draining"


def test_what_cannot_be_served_is_said_at_once(tmp_path, capsys):
    broken = hostile.copied(tmp_path / "broken")
    content = (broken / "model.onnx").read_bytes()
    (broken / "model.onnx").unlink()
    (broken / "model.onnx").write_bytes(content[:-1])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for words, message in (
            (["nowhere"], "nowhere does not exist"),
            ([str(BUNDLE), "--port", port], f"--port {port} cannot be bound"),
            ([str(BUNDLE), "--host", "0.0.0.0"], "no token is required of them"),
            ([str(BUNDLE), "--port", "0", "--token-file", "nowhere"], "--token-file nowhere cannot be read"),
            ([str(BUNDLE), "--port", "0", "--workers", "2", "--grpc-port", port], f"--grpc-port {port}"),
            ([str(BUNDLE), "--port", "0", "--workers", "2", "--grpc-port", "0"], "--grpc-port is 0, a free port"),
            ([str(broken), "--port", "0"], "model.onnx"),
            ([str(BUNDLE / "model.onnx"), "--port", "0"], "is a lone artifact"),
        ):
            assert main(words) in (1, 2)
            assert message in capsys.readouterr().err


def test_the_grpc_port_of_somebody_else_is_said(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main([str(BUNDLE), "--port", "0", "--grpc-port", port]) == 1
    assert "is another process using the port?" in capsys.readouterr().err


def test_a_log_that_cannot_be_written_ends_nothing():
    handler, full = ServiceHandler(), Path("/dev/full").open("w")  # noqa: SIM115
    handler.setStream(full)
    for _ in range(3):
        handler.handle(logging.LogRecord("stageproof", logging.INFO, "", 0, "text", (), None))
    with pytest.raises(OSError, match="No space left"):
        full.close()


def test_clients_that_leave_and_the_end(tmp_path, images, expected):
    """A request waits 1.5 s for others here: time to leave, and to end the service while it waits."""
    with running(tmp_path, "--max-wait-ms", "1500") as one:
        connection = one.connect()
        body = b'{"inputs": [%s]}' % _entry(images[0])
        connection.request("POST", INFER, body)
        one.until(lambda: one.metric("stageproof_queue_images") == 1, "the request waits")
        connection.close()
        one.until(lambda: one.metric('stageproof_dropped_total{why="disconnected"}') == 1, "the request is dropped")
        assert one.metric("stageproof_predictions_total") == 0
        assert f"POST {INFER.replace('stageproof', '{model}')} 499" in one.log

        replies = []
        client = threading.Thread(target=lambda: replies.append(one.predict({"a.png": images[1]})))
        client.start()
        one.until(lambda: one.metric("stageproof_queue_images") == 1, "the request waits")
        idle = one.connect()
        idle.connect()
        one.process.send_signal(signal.SIGTERM)
        client.join(60)
        assert one.process.wait(60) == 0
        assert (replies[0].status, plain(replies[0].json[0])) == (200, expected[1])
        with pytest.raises(ConnectionRefusedError):
            one.get("/v2")
        idle.close()
        assert "everything that was accepted is answered" in one.log


def _entry(image: bytes) -> bytes:
    return json.dumps(in_base64(image)["inputs"][0]).encode()


def exchange(place: Path, new: Path) -> None:
    """What an export does: the folder is another one from one moment to the next, nearly."""
    place.rename(place.with_name("old"))
    new.rename(place)


def test_a_broken_bundle_is_refused_and_a_good_one_is_swapped_under_load(tmp_path, images):
    place = hostile.copied(tmp_path / "bundle")
    broken, good = hostile.copied(tmp_path / "broken"), other_bundle(tmp_path / "good")
    (broken / "model.onnx").unlink()
    (broken / "model.onnx").write_bytes((good / "model.onnx").read_bytes())
    answers = {}
    for path in (place, good):
        predictor = Predictor(path, backend="onnx", threads=1)
        answers[predictor.model.digest] = says(predictor, images)
    old, new = answers
    assert [one["label"] for one in answers[old]] != [one["label"] for one in answers[new]]

    with running(tmp_path, bundle=place, until_ready=False) as one:
        one.process.send_signal(signal.SIGHUP)  # before there is a bundle, or a handler of the signal
        one.until(lambda: "reload: unchanged" in one.log, "the reload")
        first = one.get("/v2/health/ready").json["bundle_digest"]
        exchange(place, broken)
        one.process.send_signal(signal.SIGHUP)
        one.until(lambda: "the new bundle was refused" in one.log, "the reload")
        status = one.get("/v2/health/ready")
        assert (status.status, status.json["bundle_digest"]) == (200, first)
        assert status.json["last_reload"]["outcome"] == "refused"
        assert "model.onnx" in status.json["last_reload"]["error"]
        assert one.metric('stageproof_reloads_total{outcome="refused"}') == 1
        assert "the new bundle was refused" in one.log

        seen, stop = [], threading.Event()

        def load(number: int) -> None:
            connection = one.connect()
            while not stop.is_set():
                some = images[number:] + images[:number]
                reply = one.infer(in_base64(*some), connection=connection)
                seen.append((number, reply.status, reply.json))
            connection.close()

        clients = [threading.Thread(target=load, args=(number,)) for number in range(3)]
        for client in clients:
            client.start()
        place.rename(tmp_path / "refused")
        good.rename(place)
        one.process.send_signal(signal.SIGHUP)
        one.until(lambda: one.get("/v2/health/ready").json["model_digest"] == new, "the swap")
        count = len(seen)
        one.until(lambda: len(seen) > count + 6, "answers of the new bundle")
        stop.set()
        for client in clients:
            client.join(60)
        found = set()
        for number, status, data in seen:
            assert status == 200
            outputs = {entry["name"]: entry["data"] for entry in data["outputs"]}
            (digest,) = set(outputs["model_digest"])
            found.add(digest)
            want = answers[digest][number:] + answers[digest][:number]
            assert outputs["label"] == [each["label"] or "" for each in want]
        assert found == {old, new}
        assert one.metric(f'stageproof_bundle{{bundle_digest="{first}"') == 0


def test_a_bundle_that_is_watched(tmp_path):
    place, good = hostile.copied(tmp_path / "bundle"), other_bundle(tmp_path / "good")
    service = Service(Options(place, backend="onnx", threads=1), Metrics())
    service.start()

    async def exchanged() -> None:
        watching = asyncio.ensure_future(watch(place, 0.01, service))
        await asyncio.sleep(0.1)
        assert service.status()["last_reload"] is None  # an unchanged manifest is no reason to load it again
        place.rename(tmp_path / "old")
        await asyncio.sleep(0.1)  # for a moment there is none, and the old one stays in use
        good.rename(place)
        while service.loaded.model_digest != "cd" * 32:
            await asyncio.sleep(0.01)
        watching.cancel()

    asyncio.run(asyncio.wait_for(exchanged(), 60))
    assert service.state == "ready"
    service.close()


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_no_answer_is_wrong(tmp_path, images, expected):
    with running(tmp_path, "--workers", "2", "--grpc-port", str(free_port())) as one:
        one.until(lambda: one.log.count("ready: bundle") == 2, "both workers")
        stop, counts, wrong = threading.Event(), {"good": 0, "error": 0}, []

        def load() -> None:
            while not stop.is_set():
                try:
                    reply = one.predict({f"{at}.png": image for at, image in enumerate(images)})
                # The connection ended: before the answer, within its headers, or within its body.
                except (OSError, http.client.BadStatusLine, http.client.IncompleteRead):
                    counts["error"] += 1
                    continue
                except Exception as error:  # noqa: BLE001
                    wrong.append(error)
                    continue
                counts["good"] += 1
                if reply.status != 200 or [plain(each) for each in reply.json] != expected:
                    wrong.append(reply)

        clients = [threading.Thread(target=load) for _ in range(4)]
        for client in clients:
            client.start()
        for round_ in range(2):
            pids = [int(found) for found in re.findall(r"worker \d started, process (\d+)", one.log)]
            os.kill(pids[round_], signal.SIGKILL)
            one.until(lambda n=round_: one.log.count("ready: bundle") == 3 + n, "another worker")
        count = counts["good"]
        one.until(lambda: counts["good"] > count + 20, "answers after that")
        stop.set()
        for client in clients:
            client.join(60)
        assert not wrong
        assert counts["error"] <= 8  # at most the requests that each worker had when it died
        assert one.metric("stageproof_ready") == 2
        assert one.metric("stageproof_predictions_total") >= counts["good"] * len(images)
        assert one.end() == 0


@pytest.mark.slow
def test_workers_end_with_their_parent(tmp_path):
    with running(tmp_path, "--workers", "2") as one:
        pids = [int(found) for found in re.findall(r"worker \d started, process (\d+)", one.log)]
        one.process.kill()
        one.process.wait(60)

    def is_alive(pid: int) -> bool:
        try:
            return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False

    for _ in range(600):
        if not any(map(is_alive, pids)):
            return
        time.sleep(0.1)
    raise AssertionError("workers outlive their parent")
