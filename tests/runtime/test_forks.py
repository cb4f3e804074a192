"""A Predictor belongs to its process: forked children are told so and end cleanly; pickled ones load anew."""

from __future__ import annotations

import copy as copying
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from stageproof.runtime import BundleError, ForkError, InputError, Predictor, StageproofError, backends

ROOT = Path(__file__).resolve().parents[2]

CHILD = """
import itertools, os, sys, warnings
from runtime import ForkError, Predictor
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: this process has threads
bundle, scan, backend, *actions = sys.argv[1:]
predictor = Predictor(bundle, backend=backend, guard=False, threads=2, trust_code=True)
predictor.predict(scan)
running, later = predictor.stream(itertools.repeat(scan, 40), batch_size=2), predictor.stream([scan] * 40)
next(running)
USES = {
    "predict": lambda: predictor.predict(scan),
    "predict_batch": lambda: predictor.predict_batch([scan]),
    "predict_study": lambda: predictor.predict_study([scan]),
    "stream": lambda: predictor.stream([scan]),
    "a stream that was made before": lambda: next(later),
    "a stream that was running": lambda: next(running),
    "self_test": lambda: predictor.self_test(),
    "logits": lambda: predictor.logits(None),
}

def refused():
    for name, use in USES.items():
        try:
            use()
        except ForkError as error:
            assert f"loaded in process {os.getppid()}" in str(error), error
            assert "Load the Predictor in the worker process" in str(error)
        else:
            raise AssertionError(name)

def loaded_again():
    try:
        mine = Predictor(bundle, backend=backend, guard=False, threads=2, trust_code=True)
    except ForkError as error:
        assert backend != "onnx" and "spawn" in str(error), error
    else:
        assert backend == "onnx"
        assert len(mine.predict_batch([scan] * 9)) == 9

ACTIONS = {
    "nothing": lambda: None,
    "refused": refused,
    "dropped": lambda: (running.close(), globals().pop("running"), globals().pop("predictor")),
    "loaded again": loaded_again,
}
for action in actions:
    child = os.fork()
    if child == 0:
        ACTIONS[action]()
        print(action, "as it should")
        sys.exit(3)  # through the end of the interpreter, where engines would wait for their threads
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
running.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize(
    ("backend", "actions"),
    [
        ("onnx", ("nothing", "refused", "dropped", "loaded again")),
        ("openvino", ("nothing", "refused", "dropped", "loaded again")),
        ("torchscript", ("refused", "loaded again")),
    ],
    ids=["onnx", "openvino", "torchscript"],
)
def test_forked_children(backend: str, actions: tuple[str, ...], bundle: Path, scan: Path) -> None:
    """One after another, of one process."""
    if backend not in backends.available():
        pytest.skip(f"{backend} is not installed")
    folder = bundle / "model.onnx" if backend == "openvino" else bundle
    command = [sys.executable, "-c", CHILD, str(folder), str(scan), backend, *actions]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            out, err = process.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the child too, which is what hangs
            raise
    expected = [line for action in actions for line in (f"{action} as it should", "3")]
    assert (process.returncode, out.splitlines()) == (0, expected), err


def _uses(predictor: Predictor, scan: Path) -> str:
    try:
        predictor.predict(scan)
    except ForkError as error:
        return str(error)
    return "answered"


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_worker_of_multiprocessing(onnx_predictor: Predictor, scan: Path) -> None:
    """With fork the worker inherits the Predictor, as from a preloading server; the parent's goes on."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    worker = context.Process(target=lambda: sender.send(_uses(onnx_predictor, scan)))
    worker.start()
    assert receiver.poll(60)
    assert "Load the Predictor in the worker process" in receiver.recv()
    worker.join(60)
    assert worker.exitcode == 0
    assert onnx_predictor.predict(scan).status == "ok"


def _answered(predictor: Predictor, scan: Path) -> tuple[int, str, str, str]:
    return os.getpid(), predictor.backend, predictor.artifact.name, json.dumps(predictor.predict(scan).to_dict())


def test_a_pickled_one_loads_in_the_worker(bundle: Path, scan: Path, tmp_path: Path, monkeypatch) -> None:
    """As concurrent.futures, joblib, Ray and a DataLoader's spawned workers send it: path, options and digest."""
    monkeypatch.chdir(bundle.parent)
    mine = Predictor(bundle.name, backend="onnx", threads=1, guard=False, abstain_below=0.1, optimize_for="throughput")
    monkeypatch.chdir(tmp_path)
    sent = pickle.dumps(mine)
    assert len(sent) < 2000
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        process, backend, artifact, answer = pool.submit(_answered, mine, scan).result(timeout=240)
    assert process != os.getpid()
    assert (backend, artifact) == ("onnx", "model.onnx")
    there, here = json.loads(answer), mine.predict(scan).to_dict()
    assert {**there, "timings": 0, "probability": 0, "probabilities": 0} == {
        **here,
        "timings": 0,
        "probability": 0,
        "probabilities": 0,
    }
    again = pickle.loads(sent)
    assert (again._options, again._abstain_below, again.path) == (mine._options, 0.1, mine.path)
    assert again.optimize_for == "throughput"


def test_options_travel_with_absolute_paths(bundle: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = Predictor(bundle, backend="onnx", precision="fp32", tune=Path("tuned.json"), audit="log", audit_key=None)
    kind, (cls, path, options, digest) = mine.__reduce__()
    assert callable(kind)
    assert (cls, path, digest) == (Predictor, str(bundle.absolute()), mine.digest)
    assert options["tune"] == str(tmp_path / "tuned.json")
    assert options["audit"] == str(tmp_path / "log")
    assert options["threads"] is None, "the worker's own CPUs"
    assert pickle.loads(pickle.dumps(mine)).audit_anchor == mine.audit_anchor


def test_a_bundle_that_was_replaced_is_not_loaded(edit: Callable, copy: Path) -> None:
    sent = pickle.dumps(Predictor(copy, backend="onnx", guard=False))
    text = (copy / "manifest.json").read_text(encoding="utf-8")
    edit(lambda data: data["model"].update(temperature=2.0))
    with pytest.raises(BundleError, match="or was replaced"):
        pickle.loads(sent)
    (copy / "manifest.json").write_text(text, encoding="utf-8")
    assert pickle.loads(sent).backend == "onnx"
    shutil.move(copy, copy.with_name("elsewhere"))
    with pytest.raises(BundleError, match="the path of a pickled Predictor, does not exist here"):
        pickle.loads(sent)


@pytest.mark.filterwarnings("ignore:.*lone artifact:RuntimeWarning")
def test_a_lone_artifact_is_pinned_too(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "lone.onnx"
    shutil.copyfile(bundle / "model.onnx", path)
    mine = Predictor(path)
    sent = pickle.dumps(mine)
    other = Predictor(path)
    with path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match="or was replaced"):
        pickle.loads(sent)
    assert pickle.dumps(mine) == sent
    with pytest.raises(BundleError, match="or was replaced"):
        pickle.loads(pickle.dumps(other))


def test_a_copy_is_the_same_one(onnx_predictor: Predictor) -> None:
    assert copying.copy(onnx_predictor) is onnx_predictor
    assert copying.deepcopy({"model": onnx_predictor})["model"] is onnx_predictor


class Mine(Predictor):
    """A user's own."""


def test_a_subclass_stays_one(bundle: Path) -> None:
    assert type(pickle.loads(pickle.dumps(Mine(bundle, backend="onnx", guard=False)))) is Mine


def test_the_error_is_one_of_ours() -> None:
    assert issubclass(ForkError, StageproofError)
    assert not issubclass(ForkError, InputError)
