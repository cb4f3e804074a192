"""No prediction path opens a socket, starts a process or writes outside the given paths: the interpreter is watched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stageproof.runtime import backends

ROOT = Path(__file__).resolve().parents[2]

# sys.addaudithook cannot be undone, so it lives in a process of its own. PEP 578; the names are those of CPython.
WATCH = """
import os, sys
allowed = sys.argv[1]
seen = []
armed = False

def watch(event, arguments):
    if not armed:
        return
    if event.startswith(("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "urllib", "http")):
        seen.append((event, str(arguments)))
    elif event == "open":
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        inside = isinstance(path, (str, bytes)) and os.path.realpath(os.fsdecode(path)).startswith(allowed)
        if writes and isinstance(path, (str, bytes)) and not inside and os.fsdecode(path) != os.devnull:
            seen.append((event, os.fsdecode(path)))
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"):
        if not os.path.realpath(os.fsdecode(arguments[0])).startswith(allowed):
            seen.append((event, str(arguments)))
    elif event in ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn"):
        # `import torch` asks the linker for its libraries, `import matplotlib` the system for its fonts; and images are
        # decoded in processes of their own (runtime.decoding.pool), which open nothing.
        ours = event == "subprocess.Popen" and arguments[0] == sys.executable and ".decoding." in str(arguments[1])
        if not ours and not str(arguments[:1]).startswith(("('/sbin/ldconfig'", "('fc-list'")):
            seen.append((event, str(arguments)))

sys.dont_write_bytecode = True
sys.addaudithook(watch)
"""

WORK = """
from pathlib import Path
from runtime import Predictor, ImageError
from runtime.__main__ import main
from runtime.audit.verification import verify
from runtime.backends.networks import _SHAPES, _Shape
_SHAPES["tiny"] = _Shape("conv1", (), (), "")  # the network of these tests
armed = True
bundle, scan, backend, out = sys.argv[2:6]
predictor = Predictor(bundle, backend=backend, audit=out + "/audit.jsonl", self_test=True, trust_code=True)
predictor.predict(scan)
predictor.predict_batch([scan, open(scan, "rb").read(), b"broken", out + "/none.png"])
predictor.predict_study([scan])
many = Predictor(bundle, backend=backend, threads=2, optimize_for="throughput", self_test=True, trust_code=True)
assert many.concurrent_calls == 2
many.predict_batch([scan] * 96)
Predictor(bundle, backend=backend, tune=out + "/tuned.json", trust_code=True).predict(scan)
for source in sys.argv[6:]:
    try:
        predictor.predict(source)
    except ImageError:
        pass
main(["--bundle", bundle, scan, "--backend", backend, "--trust-code", "--output", out + "/results.csv"])
verify(Path(out) / "audit.jsonl")
armed = False
print(seen)
sys.exit(1 if seen else 0)
"""

EXPLAIN = """
from runtime.explain.__main__ import main
from runtime.explain.gradcam import LAYERS
LAYERS["tiny"] = ("conv1",)  # the network of these tests
armed = True
status = main([sys.argv[2], sys.argv[3], "--trust-code", "--out", sys.argv[4]])
armed = False
print(status, seen)
sys.exit(1 if seen or status else 0)
"""

OFFEND = """
import socket
armed = True
open({elsewhere!r}, "w").close()
os.mkdir({elsewhere!r} + "-folder")
try:
    socket.create_connection(("127.0.0.1", 9), timeout=1)
except OSError:
    pass
armed = False
print([event for event, _ in seen])
sys.exit(1 if seen else 0)
"""


def run(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    # PyTorch leaves there where its cache is, for processes like this one's; a host's own has not heard of it.
    inherited = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_watch_sees_offenders(tmp_path: Path) -> None:
    """Guards the test below."""
    done = run(WATCH + OFFEND.format(elsewhere=str(tmp_path / "elsewhere")), tmp_path / "allowed")
    assert done.returncode == 1, done.stderr
    assert {"open", "os.mkdir", "socket.connect"} <= set(eval(done.stdout))  # noqa: S307  our own list


@pytest.mark.parametrize("backend", sorted({"onnx", "openvino", "torchscript"} & set(backends.available())))
def test_nothing_leaves(backend: str, guarded_bundle: Path, scan: Path, tmp_path: Path) -> None:
    sources: list[Path] = []
    if backend == "onnx":  # reading does not depend on the engine
        pydicom = pytest.importorskip("pydicom", reason="the extra dicom")
        files = Path(pydicom.__file__).parent / "data" / "test_files"
        sources = [files / name for name in ("MR_small.dcm", "MR_small_jp2klossless.dcm", "JPEGLSNearLossless_08.dcm")]
    done = run(WATCH + WORK, tmp_path, guarded_bundle, scan, backend, tmp_path, *sources)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (tmp_path / "results.csv").exists()


@pytest.mark.slow
@pytest.mark.parametrize("backend", sorted({"torch-export", "pytorch"} & set(backends.available())))
def test_nothing_leaves_by_the_other_backends_of_torch(
    backend: str, other_formats: Path, scan: Path, tmp_path: Path
) -> None:
    # Importing torch.export makes PyTorch's cache folder, which stays empty, in the folder for temporary files.
    done = run(WATCH + WORK, tmp_path, other_formats, scan, backend, tmp_path, TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.slow
def test_nothing_leaves_when_a_decision_is_explained(other_formats: Path, scan: Path, tmp_path: Path) -> None:
    pytest.importorskip("captum", reason="the extra explain")
    given = {"TMPDIR": str(tmp_path), "MPLCONFIGDIR": str(tmp_path)}  # captum imports matplotlib, which keeps a cache
    done = run(WATCH + EXPLAIN, tmp_path, other_formats, scan, tmp_path / "cam.png", **given)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (tmp_path / "cam.png").stat().st_size > 1000
