"""Images decoded in processes with limits: what those may do, what a lost one costs, and what is left behind."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from stageproof.runtime import ImageError, IsolationError, Predictor
from stageproof.runtime.decoding import client as decoder_client
from stageproof.runtime.decoding import pool as decoders
from stageproof.runtime.decoding.client import pictures
from stageproof.runtime.decoding.pool import Decoders
from stageproof.runtime.images.reader import read, read_all
from tests.runtime import bombs

pytestmark = pytest.mark.skipif(not decoders.supported(), reason="needs Linux")
ROOT = Path(__file__).resolve().parents[2]
GREY = bombs.grey(48)
PNG = bombs.save(GREY, "PNG")


def started_by(process: int) -> list[int]:
    """Processes whose parent is `process`, and theirs."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    found = [child for child, parent in parents.items() if parent == process]
    return found + [below for child in found for below in started_by(child)]


@pytest.fixture
def pool():
    made = Decoders()
    yield made
    made.close()


def test_the_same_pixels_and_errors_as_in_this_process(pool: Decoders) -> None:
    rng = np.random.default_rng(2)
    colour = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
    files = [bombs.save(pixels, form) for pixels in (GREY, colour) for form in ("PNG", "JPEG", "BMP", "TIFF", "WEBP")]
    files += [
        bombs.save(GREY, "GIF"),
        bombs.save(colour, "JPEG2000"),
        bombs.save(GREY, "PPM"),
        PNG[:-40],
        b"text",
        b"\0",
    ]
    files += [bombs.save(rng.integers(0, 256, (1500, 1500, 3), dtype=np.uint8), "PNG")]  # more than `SMALL_PIXELS`
    files += [*bombs.refused().values()][:24]
    for data in files:
        answers = []
        for decoder in (None, pool):
            try:
                image = read(data, pool=decoder).image
                answers.append((image.mode, image.size, image.tobytes(), image.info))
            except ImageError as error:
                answers.append(str(error))
        assert answers[0] == answers[1]


def test_every_file_that_pydicom_ships_is_the_same(pool: Decoders) -> None:
    pytest.importorskip("pydicom", reason="the extra dicom")
    from tests.runtime.dicoms import SHIPPED

    for path in SHIPPED:
        answers = []
        for decoder in (None, pool):
            try:
                found = read_all(path, pool=decoder)
                answers.append([(one.image.tobytes(), one.transforms, one.warnings) for one in found])
            except ImageError as error:
                answers.append(str(error))
        assert answers[0] == answers[1], path


PROBE = """
import json, os, resource, socket, sys
from runtime.decoding import confinement
said = {}
confinement.limit_resources(confinement_bytes := 64 << 20)
said["enforced"] = confinement.refuse_system_calls()
def attempt(name, call):
    try:
        call()
        said[name] = "done"
    except (OSError, MemoryError) as error:
        said[name] = type(error).__name__
attempt("open", lambda: open("/etc/hostname"))
attempt("write", lambda: open("/tmp/decoder-was-here", "w"))
attempt("listdir", lambda: os.listdir("/"))
attempt("stat", lambda: os.stat("/"))
attempt("socket", lambda: socket.socket())
attempt("unix", lambda: socket.socket(socket.AF_UNIX))
attempt("fork", os.fork)
attempt("exec", lambda: os.execv(sys.executable, [sys.executable]))
attempt("kill", lambda: os.kill(os.getppid(), 0))
attempt("limits of others", lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CPU))
attempt("own limits", lambda: resource.setrlimit(resource.RLIMIT_CPU, resource.getrlimit(resource.RLIMIT_CPU)))
attempt("memory", lambda: bytearray(256 << 20))
attempt("less memory", lambda: bytearray(32 << 20))
attempt("unlink", lambda: os.unlink("/tmp/decoder-was-here"))
attempt("chmod", lambda: os.chmod("/tmp", 0o777))
print(json.dumps(said))
sys.stdout.flush()
confinement.set_cpu_time(1)
while True:
    pass
"""


def test_what_a_confined_process_may_do() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=ROOT, capture_output=True, text=True, check=False)
    said = json.loads(done.stdout)
    assert said.pop("memory") == "MemoryError"
    assert [said.pop(name) for name in ("less memory", "own limits")] == ["done", "done"]
    if not said.pop("enforced"):
        pytest.skip("this kernel has no filter of system calls")
    assert set(said.values()) == {"PermissionError"}, said
    assert done.returncode == -signal.SIGXCPU
    assert not Path("/tmp/decoder-was-here").exists()


def test_it_says_what_is_enforced(bundle: Path) -> None:
    predictor = Predictor(bundle, backend="onnx", guard=False)
    assert {"address space", "CPU time", "open files", "file size", "core dumps"} <= set(predictor.isolation)
    assert Predictor(bundle, backend="onnx", guard=False, isolate=False).isolation == ()


def test_a_lost_decoder_costs_its_own_image_only(pool: Decoders) -> None:
    """Killed at any time, from outside: others get their answers, and the pool goes on."""
    expected = {side: bombs.grey(side) for side in range(40, 60)}
    files = {side: bombs.save(pixels, "PNG") for side, pixels in expected.items()}
    read(PNG, pool=pool)
    (starter,) = [starter._process.pid for starter in pool._starters]
    stop = threading.Event()
    lost = []

    def work(worker: int) -> int:
        right = 0
        for turn in range(150):
            side = 40 + (turn * 7 + worker * 3) % 20
            try:
                assert np.array_equal(np.asarray(read(files[side], pool=pool).image), expected[side])
                right += 1
            except ImageError as error:
                assert "or crashed" in str(error)  # noqa: PT017
                lost.append(side)
        return right

    def kill() -> int:
        pick, killed = random.Random(1), 0
        while not stop.wait(0.02):
            children = started_by(starter)
            if children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pick.choice(children), signal.SIGKILL)
                    killed += 1
        return killed

    with ThreadPoolExecutor(5) as threads:
        killer = threads.submit(kill)
        right = sum(threads.map(work, range(4)))
        stop.set()
        killed = killer.result()
    assert right + len(lost) == 600
    assert killed > 0
    assert len(lost) <= killed
    time.sleep(0.5)  # the last one has ended by then
    assert np.array_equal(np.asarray(read(PNG, pool=pool).image), GREY)


def test_a_lost_starter_is_started_again(pool: Decoders) -> None:
    read(PNG, pool=pool)
    (starter,) = [starter._process.pid for starter in pool._starters]
    below = started_by(starter)
    os.kill(starter, signal.SIGKILL)
    for _ in range(100):
        if not any(Path(f"/proc/{child}/status").exists() for child in below):
            break
        time.sleep(0.05)  # the kernel ends them with it
    assert np.array_equal(np.asarray(read(PNG, pool=pool).image), GREY)


def test_nothing_is_left_when_the_last_predictor_goes(bundle: Path) -> None:
    gc.collect()
    one = Predictor(bundle, backend="onnx", guard=False)
    other = Predictor(bundle, backend="onnx", guard=False)
    assert one._pool is other._pool
    one.predict(PNG)
    (starter,) = [starter._process.pid for starter in one._pool._starters]
    assert starter in started_by(os.getpid())
    del one
    gc.collect()
    other.predict(PNG)
    shared = sys.getrefcount(other._pool)
    del other
    gc.collect()
    if shared == 2:  # of `other` and of the call: no other test's predictor holds it
        assert starter not in started_by(os.getpid())


ENDS = """
import os, sys
from pathlib import Path
from runtime.decoding.pool import shared
from runtime.images.reader import read
pool = shared()
read(bytes.fromhex(sys.argv[1]), pool=pool)
print(pool._starters[0]._process.pid, flush=True)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), 9)
if sys.argv[2] == "_exit":
    os._exit(0)
if sys.argv[2] == "forks":
    if os.fork() == 0:
        sys.exit(0)  # a child that ends in the meantime ends nothing of its parent
    os.wait()
    read(bytes.fromhex(sys.argv[1]), pool=pool)
if sys.argv[2] == "forked child lives on":
    if os.fork() == 0:
        os.close(1)
        import time; time.sleep(20)
        os._exit(0)
"""


@pytest.mark.parametrize("how", ["returns", "killed", "_exit", "forks", "forked child lives on"])
def test_nothing_is_left_when_the_host_ends(how: str) -> None:
    command = [sys.executable, "-c", ENDS, PNG.hex(), how]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=120, check=False)
    assert done.returncode == (-9 if how == "killed" else 0)
    starter = int(done.stdout)
    for _ in range(200):
        status = Path(f"/proc/{starter}/status")
        if not status.exists() or "State:\tZ" in status.read_text():  # whoever inherits it reaps it
            return
        time.sleep(0.05)
    raise AssertionError("the process that starts decoders is still there")


FORKED = """
import io, os, sys
from runtime.decoding.pool import shared
from runtime.images.reader import read
data = bytes.fromhex(sys.argv[1])
pool = shared()
read(data, pool=pool)
child = os.fork()
if child == 0:
    mine = shared()
    assert mine is not pool
    read(data, pool=mine)
    assert read(data, pool=mine).image.size == (48, 48)
    sys.exit(5)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
assert read(data, pool=pool).image.size == (48, 48)
"""


def test_a_forked_child_has_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED, PNG.hex()], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_answers_are_not_trusted() -> None:
    """A decoder that was taken over may say anything."""
    good = {"frames": [["L", 2, 2]], "transforms": [], "warnings": []}
    assert pictures(0, good, memoryview(b"1234"), 100)[0].image.size == (2, 2)
    for said, pixels in (
        ({**good, "frames": [["L", 200, 200]]}, b"1234"),
        ({**good, "frames": [["L", -2, -2]]}, b"1234"),
        ({**good, "frames": [["F", 1, 1]]}, b"1234"),
        ({**good, "frames": []}, b""),
        ({**good, "frames": 7}, b""),
        ({**good, "transforms": [1]}, b"1234"),
        (good, b"12345"),
        ({}, b""),
        (None, b""),
        ([], b""),
    ):
        with pytest.raises((ValueError, KeyError, TypeError)):
            pictures(0, said, memoryview(pixels), 100)
    with pytest.raises(ImageError) as caught:
        pictures(1, {"error": "a\n\x1b[2Jb\u202e"}, memoryview(b""), 100)
    assert str(caught.value).isprintable()


def test_without_processes_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, bundle: Path) -> None:
    monkeypatch.setattr(decoder_client, "_python", lambda: "/nonexistent/python3")
    with pytest.raises(IsolationError, match=r"No decoder process can be started .*isolate=False"):
        read(PNG, pool=Decoders())
    monkeypatch.setattr(decoder_client, "_python", lambda: "/bin/false")
    with pytest.raises(IsolationError, match=r"end immediately after their start.*isolate=False"):
        read(PNG, pool=Decoders())


def test_on_other_systems_it_warns_and_decodes_here(monkeypatch: pytest.MonkeyPatch, bundle: Path) -> None:
    monkeypatch.setattr(decoders, "supported", lambda: False)
    with pytest.warns(RuntimeWarning, match="decoded in this process"):
        predictor = Predictor(bundle, backend="onnx", guard=False)
    assert predictor.isolation == ()
    assert predictor.predict(PNG).status == "ok"


def test_max_pixels_is_an_argument(bundle: Path) -> None:
    large = bombs.save(np.zeros((2100, 2100), np.uint8), "PNG")
    predictor = Predictor(bundle, backend="onnx", guard=False)
    with pytest.raises(ImageError, match=r"2100 x 2100; at most 4194304 pixels are decoded\..*raise max_pixels"):
        predictor.predict(large)
    assert Predictor(bundle, backend="onnx", guard=False, max_pixels=5_000_000).predict(large).status == "ok"
    with pytest.raises(ImageError, match="at most 1000 pixels"):
        Predictor(bundle, backend="onnx", guard=False, max_pixels=1000).predict(PNG)
    with pytest.raises(ValueError, match="max_pixels is 0"):
        Predictor(bundle, backend="onnx", max_pixels=0)


def test_nothing_that_libraries_print_reaches_the_host(pool: Decoders, capfd: pytest.CaptureFixture) -> None:
    damaged = bytearray(bombs.save(GREY, "TIFF", compression="tiff_lzw"))
    damaged[200:260] = bytes(60)
    pick = random.Random(3)
    for _ in range(60):
        again = bytearray(damaged)
        again[pick.randrange(8, len(again))] = pick.randrange(256)
        try:
            read(bytes(again), pool=pool)
        except ImageError as error:
            assert str(error)  # noqa: PT017
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_training_and_export_decode_nothing_by_themselves() -> None:
    """But images of a verified bundle, and one that they wrote."""
    own = {"export/engines/latency.py", "export/reference/from_bundle.py", "export/bundle/rebuild.py"}
    for path in [*(ROOT / "train").rglob("*.py"), *(ROOT / "export").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        if path.relative_to(ROOT).as_posix() not in own:
            assert not re.search(r"import .*\b(read|read_all|read_image|dcmread)\b|Image\.open|import pydicom", text), (
                path
            )


def test_a_file_object_without_an_end_is_refused() -> None:
    class Endless(io.RawIOBase):
        given = 0

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            assert 0 < size <= 1 << 20
            self.given += size
            return bytes(size)

    stream = Endless()
    with pytest.raises(ImageError, match="more than 167772160 bytes"):
        read(stream)
    assert stream.given <= (160 << 20) + (1 << 20)


def test_standard_input_without_an_end_is_refused(bundle: Path) -> None:
    code = """
import sys
from runtime.__main__ import main
status = main(["--bundle", sys.argv[1], "--backend", "onnx", "-"])
# Not ru_maxrss, which starts with what the process that forked this one had.
print(status, int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) // 1024)
"""
    with Path("/dev/zero").open("rb") as endless:
        done = subprocess.run(
            [sys.executable, "-c", code, str(bundle)],
            cwd=ROOT,
            stdin=endless,
            capture_output=True,
            text=True,
            check=True,
        )
    assert "the file object has more than 167772160 bytes" in done.stdout
    status, most = done.stdout.splitlines()[-1].split()
    assert status == "1"
    assert int(most) < 512


def test_a_path_that_becomes_a_pipe_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scan.png"
    path.write_bytes(PNG)
    regular = path.stat()
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(Path, "stat", lambda self, **_: regular)
    with pytest.raises(ImageError, match="is not a regular file"):
        read(path)


LIMITS = """
import json, os, resource, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from runtime import ImageError
from runtime.decoding.pool import Decoders
from runtime.images.reader import read_all
from tests.runtime import bombs
pool = Decoders()
files = bombs.costly()
def cpu(process):
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
for name, data in files.items():
    try:
        read_all(data, pool=pool)
        said = ""
    except ImageError as error:
        said = str(error)
    print(json.dumps([name, said, int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) / 1024]))
pool.close()
children = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([children.ru_maxrss / 1024, (children.ru_utime + children.ru_stime) / len(files)]))
"""


@pytest.mark.slow
def test_what_is_within_the_limits_stays_within() -> None:
    """The costliest of each kind, decoded in processes: none of them reaches half a gigabyte, on either side."""
    pytest.importorskip("pydicom", reason="the extra dicom")
    done = subprocess.run(
        [sys.executable, "-c", LIMITS], cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *rows, (child, _) = map(json.loads, done.stdout.splitlines())
    assert child < 512
    assert rows[-1][2] < 512
