"""Artifacts are timed in turn, and the Predictor's choice follows from that."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import time
from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from stageproof.export.engines import latency
from stageproof.export.engines.latency import interleaved_latency, timed
from stageproof.runtime.bundle.manifest import FILE, Artifact, read_manifest
from stageproof.runtime.inference.selection import candidates
from stageproof.runtime.predictor import Predictor
from stageproof.runtime.serialization.digests import sha256_file

ELSEWHERE = "another machine, 64 threads"


@pytest.fixture
def bundle(small_bundle, tmp_path):
    return shutil.copytree(small_bundle, tmp_path / "bundle")


def slowed(source, target) -> None:
    """Write the model with four large products on the way to its answer, which they leave as it is."""
    model = onnx.load(source)
    graph, size = model.graph, 700
    answer = graph.output[0].name
    for node in graph.node:
        node.output[:] = ["quick" if name == answer else name for name in node.output]
    weights = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    constants = {"square": weights, "nothing": np.zeros(1, np.float32)}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    nodes = [("ReduceMean", ["quick"], "one"), ("Mul", ["one", "square"], "x0")]
    nodes += [("MatMul", [f"x{index}", "square"], f"x{index + 1}") for index in range(4)]
    nodes += [
        ("ReduceMean", ["x4"], "least"),
        ("Mul", ["least", "nothing"], "zero"),
        ("Add", ["quick", "zero"], answer),
    ]
    for kind, inputs, output in nodes:
        settings = {"keepdims": 0} if kind.startswith("Reduce") else {}
        graph.node.append(helper.make_node(kind, inputs, [output], **settings))
    onnx.save(model, target)


def in_its_turn(bundle, artifacts) -> list[Artifact]:
    manifest = read_manifest(bundle)
    return timed(bundle, artifacts, manifest.golden, manifest.model.input, 1, bundle.parent / "latency.log")


def test_a_slowed_artifact_is_ranked_last_whatever_was_measured_before(bundle):
    """Timed when it was built, the slow one met a quiet moment and the quick one a busy one."""
    manifest = read_manifest(bundle)
    (quick,) = manifest.artifacts
    slowed(bundle / quick.file, bundle / "model.slow.onnx")
    slow = replace(
        quick,
        file="model.slow.onnx",
        sha256=sha256_file(bundle / "model.slow.onnx"),
        size_bytes=(bundle / "model.slow.onnx").stat().st_size,
        checks=tuple(replace(check, latency_ms=0.001) for check in quick.checks),
    )
    quick = replace(quick, checks=tuple(replace(check, latency_ms=1e6, machine=ELSEWHERE) for check in quick.checks))
    artifacts = in_its_turn(bundle, [slow, quick])
    (bundle / FILE).unlink()
    (bundle / FILE).write_text(replace(manifest, artifacts=tuple(artifacts)).to_json(), encoding="utf-8")

    chosen = candidates(read_manifest(bundle), None, None)
    backends = len(quick.checks)
    assert [c.artifact.file for c in chosen] == ["model.onnx"] * backends + ["model.slow.onnx"] * backends
    assert chosen[0].check.latency_ms > 0.001, "measured anew"
    assert all(", 1 threads" in c.check.machine for c in chosen)
    assert Predictor(bundle).artifact.name == "model.onnx"


def test_a_busy_moment_changes_nothing(monkeypatch):
    """The machine is busy for the first forty answers, whoever gives them."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr("export.engines.latency.wait_until_idle", lambda clock: None)

    def answering(until: list[int], seconds: float) -> None:
        until[0] -= 1
        now[0] += seconds + (0.03 if until[0] > 0 else 0)

    def seconds(call) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    def both():
        busy = [40]
        return {("quick", ""): partial(answering, busy, 0.002), ("slow", ""): partial(answering, busy, 0.006)}

    one_after_another = [statistics.median(seconds(call) for _ in range(30)) for call in both().values()]
    assert one_after_another[0] > one_after_another[1]
    quick, slow = interleaved_latency(both()).values()
    assert quick < slow


def test_what_cannot_be_asked_here_keeps_its_figure_and_another_engine_is_named(bundle, said):
    (artifact,) = read_manifest(bundle).artifacts
    gone = replace(artifact.checks[0], backend="an engine of tomorrow", latency_ms=7.0, machine=ELSEWHERE)
    old = [replace(check, engine="an engine 0.1", latency_ms=1e6) for check in artifact.checks]
    (after,) = in_its_turn(bundle, [replace(artifact, checks=(gone, *old))])
    assert after.checks[0] == gone
    assert said[1:] == [
        "model.onnx in an engine of tomorrow was not timed and keeps its recorded latency: "
        "'an engine of tomorrow' is not known to this version."
    ]
    for check, before in zip(after.checks[1:], artifact.checks, strict=True):
        assert check.latency_ms < 1e5
        assert check.machine.endswith(f", 1 threads, {before.engine}")


@pytest.mark.slow
def test_a_process_that_dies_leaves_the_figures_as_they_were(bundle, monkeypatch, said):
    real = latency.run_in_child_process
    monkeypatch.setattr(latency, "run_in_child_process", lambda task, *rest: real(die, *rest))
    artifacts = list(read_manifest(bundle).artifacts)
    assert in_its_turn(bundle, artifacts) == artifacts
    assert "its process ended with -9" in said[1]


def die(*arguments):
    """Stands for an engine that takes its process down."""
    os.kill(os.getpid(), signal.SIGKILL)
