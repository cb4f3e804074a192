"""The ONNX graph of each precision, built once an export, for every format that is made from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stageproof.export.engines.runners import load_in_each, run_in_batches
from stageproof.export.graphs.float_graph import exported
from stageproof.export.graphs.metadata import describe
from stageproof.export.hashed_files import write
from stageproof.export.parity.report import tolerance_for
from stageproof.export.preprocessing.onnx import with_pixels
from stageproof.export.quantization.fp8 import float8
from stageproof.export.quantization.inputs import Inputs
from stageproof.export.quantization.int8 import quantized
from stageproof.runtime.errors import BackendUnavailable, ParityError

if TYPE_CHECKING:
    from onnx import ModelProto

    from stageproof.export.reference.context import Job


@dataclass(frozen=True)
class Graph:
    """A graph on the disk."""

    path: Path
    digest: str
    """SHA-256 of the file as it was in memory."""
    quantisation: dict[str, Any] | None = None
    """JSON-ready: what a quantised graph was calibrated and chosen on."""


def graph(job: Job, precision: str) -> Graph:
    """The ONNX graph in `precision`. Raises ExportError, ParityError where it is not expected to pass the gate, and
    DatasetError where there is nothing to calibrate on."""
    path = job.work / f"{precision}.onnx"
    # Each format is built in a process of its own: what one of them found is on the disk for the next.
    note, refused = path.with_suffix(".graph.json"), path.with_suffix(".refused")
    if refused.exists():
        raise ParityError(refused.read_text(encoding="utf-8"))
    if not note.exists():
        facts = None
        if precision in ("int8", "fp8"):
            try:
                model, facts = _quantised(job, precision)
            except ParityError as error:  # minutes of search, whose end the other formats need not repeat
                refused.write_text(str(error), encoding="utf-8")
                raise
        else:
            model = exported(job.reference, precision)
        describe(model, job.description(precision))
        note.write_text(json.dumps([write(path, model.SerializeToString()), facts]), encoding="utf-8")
    return Graph(path, *json.loads(note.read_text(encoding="utf-8")))


def graph_of_pixels(job: Job, precision: str) -> Graph:
    """As `graph`, with the preprocessing in front and, where it is asked for, softmax behind."""
    import onnx

    source = graph(job, precision)
    path = job.work / f"{precision}.pixels.onnx"
    note = path.with_suffix(".sha256")
    if not note.exists():
        info, softmax = job.reference.info, job.options.with_softmax
        model = with_pixels(onnx.load(source.path), info.input, info.temperature if softmax else None)
        describe(model, job.description(precision, pixels=True))
        note.write_text(write(path, model.SerializeToString()), encoding="ascii")
    return Graph(path, note.read_text(encoding="ascii"), source.quantisation)


def _quantised(job: Job, precision: str) -> tuple[ModelProto, dict[str, Any]]:
    """The graph in 8 bits that is expected to pass the gate, and what it was calibrated and chosen on."""
    model, facts = (quantized if precision == "int8" else float8)(quantisation_inputs(job, precision))
    if precision == "fp8":
        _assert_decides_alike(job, model)
    return model, facts


def quantisation_inputs(job: Job, precision: str) -> Inputs:
    """What quantisation is given of an export. Raises DatasetError where there is nothing to calibrate on."""
    import onnx

    calibration, selection = job.calibration
    return Inputs(
        onnx.load(graph(job, "fp32").path),
        calibration,
        selection,
        job.evidence,
        job.reference.info,
        tolerance_for(precision, job.options.tolerance, job.options.flip_tolerance).flips,
        job.work,
        job.threads,
        _runner(job, precision),
        job.say,
    )


def _runner(job: Job, precision: str) -> Callable[[ModelProto, np.ndarray], dict[str, np.ndarray]]:
    """Function: a graph and (N, C, H, W) float32 images → backend → (N, classes) float32 logits, of all here that run
    the graph. It raises BackendUnavailable where none does."""

    def run(model: ModelProto, images: np.ndarray) -> dict[str, np.ndarray]:
        skipped: list[str] = []
        path = _candidate(job, model, precision)
        backends = load_in_each(path, "onnx", precision, job.threads, skipped)
        logits = {name: run_in_batches(backend, images) for name, backend in backends}
        if not logits:
            raise BackendUnavailable(". ".join(skipped))
        return logits

    return run


def _candidate(job: Job, model: ModelProto, precision: str) -> Path:
    """The graph as a file that engines here can be asked with."""
    describe(model, job.description(precision))
    path = job.work / f"candidate.{precision}.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _assert_decides_alike(job: Job, model: ModelProto) -> None:
    """Raise ParityError where the fp8 graph does not decide as the reference, in the engines here that compute it.

    The engine built from it needs a GPU to be asked, and there may be none.
    """
    from stageproof.export.parity.gate import judge  # which imports torch

    verdict = judge(job, _candidate(job, model, "fp8"), "onnx", "fp8", timed=False)
    for report in verdict.reports:
        changed = f"{report['changed']} of {report['images']}"
        job.say(f"fp8: its graph in {report['engine']} changes {changed} (upper bound {report['changed_bound']:.1%})")
    if verdict.failures:
        raise ParityError(f"fp8 failed the parity gate: {' '.join(verdict.failures)}")
