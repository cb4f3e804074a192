"""The servers: one real peer, started once; the command of the service; and the whole run (slow)."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from stageproof.benchmarks.__main__ import main
from stageproof.benchmarks.serving.analysis.record import read_record
from stageproof.benchmarks.serving.client.load import LOADS
from stageproof.benchmarks.serving.in_process import expected_answers
from stageproof.benchmarks.serving.measure import WRONG, Running
from stageproof.benchmarks.serving.options import SERVERS, parse
from stageproof.benchmarks.serving.process_tree import ProcessTree
from stageproof.benchmarks.serving.servers import OURS, PEERS, Server, free_port, ours, peer
from stageproof.benchmarks.serving.stage_metrics import between, parse_metrics
from stageproof.runtime import BackendError, InputError
from stageproof.runtime.bundle.manifest import read_manifest
from stageproof.train.data.phantom.__main__ import draw_slice

ROOT = Path(__file__).resolve().parents[3]
BUNDLE = ROOT / "tests" / "data" / "bundle-0.1"
CLOSED, OPEN = (next(load for load in LOADS if bool(load.clients) == closed) for closed in (True, False))


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    found = []
    for number in range(6):
        file = io.BytesIO()
        Image.fromarray(draw_slice(number % 4, 500 + number, 0.5, seed=7)).save(file, "PNG")
        found.append(file.getvalue())
    return found


@pytest.fixture(scope="module")
def expected(images):
    return expected_answers(BUNDLE, "fp32", images)


@pytest.fixture(scope="module")
def fastapi(tmp_path_factory) -> Server:
    """Plain FastAPI around ONNX Runtime, in this environment."""
    work = tmp_path_factory.mktemp("work")
    info = read_manifest(BUNDLE).model
    model = {"model": str(BUNDLE / "model.onnx"), "labels": info.labels, **info.input.to_dict()}
    return peer("fastapi", sys.executable, {**model, "temperature": info.temperature, "threads": 1, "batch": 4}, work)


@pytest.fixture(scope="module")
def running(fastapi, images, expected, tmp_path_factory) -> Iterator[Running]:
    with Running(fastapi, images, expected, tmp_path_factory.mktemp("running")) as one:
        yield one
    assert one.tree.pids() == []


def test_a_peer_answers_as_the_predictor(running, expected):
    assert len({tuple(by.values()) for _, by in expected}) == len(expected), "crossed answers would be noticed"
    one = running.cell(CLOSED, 0.3, 0.0, 0, 1)
    assert one.latencies_ms
    assert one.errors == {}
    assert one.offered_per_s is None
    open_ = running.cell(OPEN, 0.3, 100.0, 1, 1)
    assert open_.offered_per_s == 30
    assert open_.errors == {}
    assert 20e6 < open_.pss_bytes < 2e9
    assert one.stages_ms == {}, "the service's metrics, not a peer's"


def test_wrong_answers_are_errors(running, monkeypatch):
    right = running._expected
    monkeypatch.setattr(running, "_expected", [*right[1:], right[0]])
    one = running.cell(CLOSED, 0.2, 0.0, 0, 1)
    assert one.errors[WRONG] > 0
    assert len(one.latencies_ms) < one.errors[WRONG]


def test_paused_servers_use_no_time_and_go_on(running):
    running.tree.pause()
    before = running.tree.cpu_seconds()
    try:
        states = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in running.tree.pids()]
        assert set(states) == {"T"}
        assert running.tree.cpu_seconds() == before
    finally:
        running.tree.resume()
    assert running.cell(CLOSED, 0.2, 0.0, 0, 1).latencies_ms


def test_servers_that_cannot_be_used(fastapi, images, expected, tmp_path):
    code = "raise SystemExit('no such model')"
    gone = replace(fastapi, command=(sys.executable, "-S", "-c", code), port=free_port())
    with pytest.raises(BackendError, match="FastAPI around ONNX Runtime ended with 1: no such model"):
        Running(gone, images, expected, tmp_path)


def test_all_processes_end(tmp_path):
    """Also a daemon, whose parent is not the server, and a child without an environment."""
    code = """
import os, sys, time
if os.fork() == 0:
    os.execve(sys.executable, ["x", "-S", "-c", "import time; time.sleep(100)"], {})
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
time.sleep(100)
"""
    with ProcessTree((sys.executable, "-S", "-c", code), dict(os.environ), tmp_path, tmp_path / "log") as tree:
        while len(tree.pids()) < 3:
            assert tree.exit_status is None
            time.sleep(0.01)
        pids = tree.pids()
    assert tree.pids() == []
    assert all(not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text() for pid in pids)


def test_peers_that_are_not_installed(tmp_path):
    with pytest.raises(InputError, match=r"litserve needs litserve, which .*python.* does not have"):
        peer("litserve", sys.executable, {}, tmp_path)
    with pytest.raises(InputError, match=r"/nowhere/python cannot be run for litserve .*Expected a Python interpreter"):
        peer("litserve", "/nowhere/python", {}, tmp_path)


def test_the_command_of_the_service():
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    from stageproof.serving.http.__main__ import _parser

    server = ours(BUNDLE, "fp32", 2)
    assert str(ROOT) in server.environment["PYTHONPATH"].split(os.pathsep)
    assert server.command[1:4] == ("-m", "stageproof", "serve")
    given = _parser().parse_args(server.command[4:])
    assert (given.bundle, given.port, given.backend, given.precision) == (BUNDLE, server.port, "onnx", "fp32")
    assert (given.threads, given.access_log, given.host) == (2, False, "127.0.0.1")


def test_names_of_servers():
    assert (OURS, *PEERS) == SERVERS
    modules = {path.stem for path in (ROOT / "benchmarks" / "serving" / "peers").glob("*_server.py")}
    assert {one.module for one in PEERS.values()} == modules
    assert abs(free_port() - free_port()) != 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--peer", "gunicorn=/x"), "--peer is 'gunicorn=/x', expected NAME=PYTHON with NAME one of fastapi,"),
        (("--peer", "fastapi"), "--peer is 'fastapi', expected NAME=PYTHON"),
        (("--peer", "fastapi=a", "--peer", "fastapi=b"), "--peer names a peer twice"),
        (("--only", "stageproof", "flask"), "--only names flask, expected any of stageproof, fastapi"),
        (("--seconds", "0"), "--seconds is 0.0, expected 0.2 or more"),
        (("--out", "/nowhere/x.json"), "--out /nowhere/x.json: expected a file in an existing folder"),
        (("--report", "a.json", "--out", "b.json"), "--report does not measure"),
    ],
)
def test_options(words, message):
    with pytest.raises(InputError) as raised:
        parse(["bundle", *words])
    assert message in str(raised.value)


def test_stage_metrics():
    text = """# TYPE stageproof_stage_seconds histogram
stageproof_stage_seconds_bucket{stage="engine",le="+Inf"} %d
stageproof_stage_seconds_sum{stage="engine"} %s
stageproof_stage_seconds_count{stage="engine"} %d
# TYPE stageproof_request_seconds histogram
stageproof_request_seconds_sum{route="/metrics"} 9
stageproof_request_seconds_count{route="/metrics"} 9
# TYPE other histogram
other_sum 5
other_count 1
"""
    before, after = parse_metrics(text % (4, 0.4, 4)), parse_metrics(text % (6, 0.44, 6))
    assert between(before, after) == {"engine": 20.0}
    assert between(after, after) == {}, "nothing was predicted meanwhile"


@pytest.fixture
def data(images, tmp_path) -> Path:
    for number, image in enumerate(images * 2):
        folder = tmp_path / "data" / ("NonDemented", "MildDemented")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.open(io.BytesIO(image)).convert("L").rotate(number, fillcolor=0)
        picture.save(folder / f"{number}.png")
    return tmp_path / "data"


@pytest.mark.slow
def test_a_whole_run(data, tmp_path, capsys):
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    words = ["serving", str(BUNDLE), "--data", str(data), "--only", "stageproof", "fastapi", "litserve"]
    words += ["--rounds", "2"]
    words += ["--seconds", "0.4", "--stream-images", "16", "--threads", "1", "--work", str(tmp_path / "work")]
    assert main([*words, "--out", str(tmp_path / "a.json"), "--markdown", str(tmp_path / "a.md")]) == 0
    record = read_record(tmp_path / "a.json")
    assert {one.server for one in record.cells} == {"stageproof", "fastapi"}
    assert len(record.cells) == 2 * 2 * len(LOADS)
    assert not any(one.errors for one in record.cells)
    assert all(one.latencies_ms for one in record.cells if one.load != "30 % load")
    engine = [one.stages_ms.get("engine", 0.0) for one in record.cells if one.server == "stageproof"]
    assert max(engine) > 0
    assert "litserve was not measured: litserve needs litserve" in record.facts["notes"][0]
    shown = capsys.readouterr().out
    assert "1 client: at most 1.5 ms over the Predictor" in shown
    assert "| Stageproof |" in (tmp_path / "a.md").read_text()
    # Again in the same folder: what was measured is kept, and one missing part is measured.
    parts = tmp_path / "work" / "parts"
    (parts / "1-fastapi.json").unlink()
    kept = {path: path.read_bytes() for path in parts.iterdir()}
    assert main([*words, "--out", str(tmp_path / "b.json")]) == 0
    assert all(path.read_bytes() == content for path, content in kept.items())
    again = read_record(tmp_path / "b.json")
    assert [one for one in again.cells if one.server == "stageproof"] == [
        one for one in record.cells if one.server == "stageproof"
    ]
    assert main([*words, "--seconds", "0.5"]) == 2
    assert "holds a run that differs in seconds" in capsys.readouterr().err
    assert main(["serving", "--report", str(tmp_path / "b.json")]) == 0
    assert "fail" in (out := capsys.readouterr().out) or "pass" in out


@pytest.mark.slow
def test_servers_end_with_the_command(data, tmp_path):
    words = [str(BUNDLE), "--data", str(data), "--only", "fastapi", "--rounds", "2", "--work", str(tmp_path / "work")]
    command = [sys.executable, "-m", "benchmarks", "serving", *words]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    settings = tmp_path / "work" / "fastapi.json"
    for line in process.stderr:
        if "round 1 of 2" in line:
            break
    assert json.loads(settings.read_text())["threads"] >= 1
    assert _processes_with(settings)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert not _processes_with(settings)


def _processes_with(settings: Path) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"SERVING_PEER={settings}".encode() in (folder / "environ").read_bytes():
                found.append(folder.name)
        except OSError:
            continue
    return found
