"""Builds the ONNX graph of each precision once per export and stores it for all formats that are converted from it."""

from __future__ import annotations

import json
import logging
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


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Graph:
    """A stored graph."""

    path: Path
    digest: str
    """SHA-256 of the file's content in memory."""
    quantisation: dict[str, Any] | None = None
    """Data that a quantised graph was calibrated and its layers selected on, JSON-ready."""


def graph(job: Job, precision: str) -> Graph:
    """The ONNX graph in `precision`. Raises ExportError, ParityError if it is not expected to pass the gate, and
    DatasetError without calibration images."""
    path = job.work / f"{precision}.onnx"
    # Each format is built in a separate process, so results are shared through files.
    note, refused = path.with_suffix(".graph.json"), path.with_suffix(".refused")
    if refused.exists():
        raise ParityError(refused.read_text(encoding="utf-8"))
    if not note.exists():
        facts = None
        if precision in ("int8", "fp8"):
            try:
                model, facts = _quantised(job, precision)
            except ParityError as error:  # stored, so that other formats do not repeat a search of minutes
                refused.write_text(str(error), encoding="utf-8")
                raise
        else:
            model = exported(job.reference, precision)
        describe(model, job.description(precision))
        note.write_text(json.dumps([write(path, model.SerializeToString()), facts]), encoding="utf-8")
    return Graph(path, *json.loads(note.read_text(encoding="utf-8")))


def graph_of_pixels(job: Job, precision: str) -> Graph:
    """As `graph`, with preprocessing before the model and, with --with-softmax, softmax after it."""
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
    """(8-bit graph that is expected to pass the gate, facts of its calibration and layer selection)."""
    model, facts = (quantized if precision == "int8" else float8)(quantisation_inputs(job, precision))
    if precision == "fp8":
        _assert_parity(job, model)
    return model, facts


def quantisation_inputs(job: Job, precision: str) -> Inputs:
    """The inputs of quantisation. Raises DatasetError without calibration images."""
    import onnx

    calibration, selection = job.calibration
    return Inputs(
        onnx.load(graph(job, "fp32").path),
        calibration,
        selection,
        job.evaluation_set,
        job.reference.info,
        tolerance_for(precision, job.options.tolerance, job.options.flip_tolerance).flips,
        job.work,
        job.threads,
        _runner(job, precision),
    )


def _runner(job: Job, precision: str) -> Callable[[ModelProto, np.ndarray], dict[str, np.ndarray]]:
    """Function that runs a graph on (N, C, H, W) float32 images in all available backends and returns backend →
    (N, classes) float32 logits. It raises BackendUnavailable if none runs the graph."""

    def run(model: ModelProto, images: np.ndarray) -> dict[str, np.ndarray]:
        skipped: list[str] = []
        path = _candidate(job, model, precision)
        backends = load_in_each(path, "onnx", precision, job.threads, skipped)
        logits = {
            name: run_in_batches(backend, images, what=f"{precision} candidate in {name}") for name, backend in backends
        }
        if not logits:
            raise BackendUnavailable(". ".join(skipped))
        return logits

    return run


def _candidate(job: Job, model: ModelProto, precision: str) -> Path:
    """Path of a file with the graph, for running it in engines."""
    describe(model, job.description(precision))
    path = job.work / f"candidate.{precision}.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _assert_parity(job: Job, model: ModelProto) -> None:
    """Raise ParityError if the fp8 graph fails the parity gate in the available backends that run it.

    The TensorRT engine built from it can only run on a GPU, and there may be none.
    """
    from stageproof.export.parity.gate import judge  # imports torch

    verdict = judge(job, _candidate(job, model, "fp8"), "onnx", "fp8", timed=False)
    for report in verdict.reports:
        changed = f"{report['changed']} of {report['images']}"
        bound = f"upper bound {report['changed_bound']:.1%}"
        logger.info(f"fp8: the ONNX graph in {report['engine']} changes {changed} predictions ({bound})")
    if verdict.failures:
        raise ParityError(f"fp8 failed the parity gate: {' '.join(verdict.failures)}")
