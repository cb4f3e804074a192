"""The service as a process, clients of it, and images of every kind with what the Predictor says of each."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stageproof.runtime import Prediction, Predictor
from tests.runtime import bombs, hostile
from tests.serving.conftest import BUNDLE, ROOT

OPTIONS = ("--backend", "onnx", "--threads", "1")
INFER = "/v2/models/stageproof/infer"


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        assert set(self.json) == {"error"}
        return self.json["error"]


@dataclass
class Running:
    process: subprocess.Popen
    port: int
    log_file: Path
    grpc_port: int = 0
    _connection: http.client.HTTPConnection | None = field(default=None, repr=False)

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = {}, *, connection: Any = None
    ) -> Reply:
        if connection is not None:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        one = self.connect()
        try:
            return self.send(method, path, body, headers, connection=one)
        finally:
            one.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.send("GET", path, headers=headers)

    def infer(self, data: Mapping[str, Any] | bytes, blobs: bytes = b"", path: str = INFER, **more: Any) -> Reply:
        text = data if isinstance(data, bytes) else json.dumps(data).encode()
        headers = {"Inference-Header-Content-Length": str(len(text))} if blobs else {}
        return self.send("POST", path, text + blobs, headers, **more)

    def predict(self, files: Mapping[str, bytes], path: str = "/predict", **more: Any) -> Reply:
        body, kind = form(files)
        return self.send("POST", path, body, {"Content-Type": kind}, **more)

    def until(self, true: Any, what: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert self.process.poll() is None, f"ended while waiting for {what}:\n{self.log}"
            assert time.monotonic() < end, f"{what} did not happen:\n{self.log}"
            time.sleep(0.02)

    def ready(self) -> bool:
        return self.get("/v2/health/ready").status == 200

    def metric(self, name: str) -> float:
        """The sum of the samples that start with this text."""
        text = self.get("/metrics").body.decode()
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))

    def rss(self) -> int:
        """Bytes of the process in memory."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) << 10

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def running(folder: Path, *options: str, bundle: Path = BUNDLE, until_ready: bool = True) -> Iterator[Running]:
    """A service on a free port of the loopback interface. folder: for its log."""
    log = folder / "service.log"
    command = [sys.executable, "-m", "serving.http", str(bundle), "--port", "0", *OPTIONS, *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, cwd=folder, stderr=stderr, env=environment)
    service = Running(process, 0, log)
    try:
        service.until(lambda: "listening on" in service.log, "listening")
        service.port = int(re.search(r"listening on https?://\S+:(\d+),", service.log)[1])
        if until_ready:
            service.until(service.ready, "the self-test")
        yield service
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def form(files: Mapping[str, bytes]) -> tuple[bytes, str]:
    """A multipart form, and its Content-Type."""
    parts = []
    for name, content in files.items():
        head = f'--xyzzy\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    return b"".join(parts) + b"--xyzzy--\r\n", "multipart/form-data; boundary=xyzzy"


def in_base64(*images: bytes, **more: Any) -> dict[str, Any]:
    """An inference request in JSON."""
    data = [base64.b64encode(image).decode() for image in images]
    return {"inputs": [{"name": "image", "shape": [len(images)], "datatype": "BYTES", "data": data}], **more}


def prefixed(*images: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(image)) + image for image in images)


def in_binary(*images: bytes, **more: Any) -> tuple[dict[str, Any], bytes]:
    """An inference request with a binary tensor."""
    blob = prefixed(*images)
    entry = {"name": "image", "shape": [len(images)], "datatype": "BYTES"}
    return {"inputs": [{**entry, "parameters": {"binary_data_size": len(blob)}}], **more}, blob


def slices(count: int, seed: int = 7) -> list[bytes]:
    """PNG files of phantoms."""
    from stageproof.train.data.phantom.__main__ import draw_slice

    found = []
    for at in range(count):
        buffer = io.BytesIO()
        picture = Image.fromarray(draw_slice(at % 4, 500 + at, 0.3 + at % 4 / 10, seed=seed)).resize((48, 48))
        picture.save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


def mixed(count: int = 8) -> list[bytes]:
    """Good, rejected and broken images: `count` of the first kind."""
    good = slices(count)
    noise = np.random.default_rng(0).integers(0, 256, (48, 48), np.uint8)
    rejected = [bombs.save(noise, "PNG"), bombs.save(np.full((40, 40), 255, np.uint8), "JPEG")]
    broken = [good[0][:100], b"", b"no image", bombs.png(60000, 60000)]
    dicom = bombs.dicom("1.2.840.10008.1.2.1", noise.tobytes(), 48, 48, encapsulated=False)
    return [*good, *rejected, *broken, dicom]


def says(predictor: Predictor, images: list[bytes]) -> list[dict[str, Any]]:
    """What the Predictor says of each image, on its own."""
    return [plain(predictor.predict_batch([image])[0]) for image in images]


def plain(prediction: Prediction | Mapping[str, Any]) -> dict[str, Any]:
    """A prediction without times and the name of its file; probabilities to 6 digits: the engine adds up the numbers of
    a batch in another order than those of one image, which moves the last digits."""
    found = dict(prediction.to_dict() if isinstance(prediction, Prediction) else prediction)
    for name in ("timings", "file"):
        found.pop(name, None)
    rounded = {name: round(value, 5) for name, value in found["probabilities"].items()}
    return {**found, "probabilities": rounded, "probability": found["probability"] and round(found["probability"], 5)}


def other_bundle(folder: Path) -> Path:
    """A good bundle whose classes are permuted, with another digest: it answers another label for every image."""
    import onnx

    bundle = hostile.only(hostile.copied(folder), "model.onnx")
    model = onnx.load(bundle / "model.onnx")
    (entry,) = model.metadata_props
    data = json.loads(entry.value)
    data["labels"] = data["labels"][1:] + data["labels"][:1]
    data["digest"] = "cd" * 32
    entry.value = json.dumps(data)
    hostile.exchanged(bundle, "model.onnx", model.SerializeToString())

    def change(manifest: dict[str, Any]) -> None:
        manifest["model"].update(labels=data["labels"], digest=data["digest"])

    return hostile.rewritten(bundle, change)
