"""int8: one symmetric Q/DQ graph that OpenVINO, ONNX Runtime and TensorRT all run, with float kept where it must be.

Activations and weights are int8 around zero, weights per output channel, biases float: TensorRT refuses the int32
biases that ONNX Runtime's quantiser writes by default. Calibrated on the run's own training slices.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from export.job import Evidence, Job
from export.parity import tolerance_for
from export.qdq import layers, with_float_layers
from runtime.errors import ParityError

if TYPE_CHECKING:
    from onnx import ModelProto

    from export.gate import Verdict

STEPS = (0, 1, 2, 4, 6, 8, 12, 16, 20, 24)
"""How many layers, worst first, are put back to float before the gate is asked again."""
RANKING_IMAGES = 64
FIRMER = 0.5
"""A network is surer of slices it was trained on than of new ones, so on those this share of the flips is allowed."""
FACTS = "int8.json"
"""In the job's work folder: what the graph was calibrated and chosen on, for the manifest."""


def quantized(job: Job) -> ModelProto:
    """The int8 graph that holds on training slices with as few float layers as the steps allow.

    Ranges come from one set of training slices, the choice of float layers from another, and the gate measures what
    comes out on slices that had no part in either: figures chosen on what they are then measured on would flatter.

    The head is always float: it is a thousandth of the work and most of the logit error. Raises ParityError when half
    of the layers in float do not suffice, DatasetError when there is nothing to calibrate on.
    """
    import onnx as onnx_library

    from export.formats import onnx
    from export.gate import judge

    source, _ = onnx.graph(job, "fp32")
    calibration, selection = job.calibration
    job.say(f"int8: calibrating on {len(calibration.images)} training slices")
    original = onnx_library.load(source)
    full = insert_qdq(job, source, calibration.images)
    allowed = tolerance_for("int8", job.options.tolerance, job.options.flip_tolerance).flips * FIRMER
    chooser = replace(job, evidence=selection, options=replace(job.options, flip_tolerance=allowed))
    everything = layers(full)
    keep = head_layers(full)
    ranking: list[str] | None = None
    candidate = job.work / "candidate.int8.onnx"
    failures: list[str] = []
    for step in STEPS:
        if step and ranking is None:
            job.say(f"int8: {' '.join(failures)} Looking for the layers that hurt most")
            ranking = rank(job, full, original, keep, *_few(calibration))
        floated = [*keep, *(ranking or [])[:step]]
        if len(floated) * 2 >= len(everything):
            break
        model = with_float_layers(full, floated, original)
        onnx.describe(model, job.reference.info)
        candidate.write_bytes(model.SerializeToString())
        verdict = judge(chooser, candidate, "onnx", "int8", timed=False)
        if verdict.passed:
            job.say(f"int8: {len(floated)} of {len(everything)} layers in float: {', '.join(floated)}")
            (job.work / FACTS).write_text(json.dumps(_facts(job, floated, verdict)), encoding="utf-8")
            return model
        failures = verdict.failures or verdict.skipped
    raise ParityError(
        f"int8 does not hold on {len(selection.images)} training slices with {len(floated)} of {len(everything)} "
        f"layers put back to float, the worst first: {' '.join(failures)} Fine-tune with quantisation, or use fp16 or "
        "bf16."
    )


def insert_qdq(job: Job, source: Any, images: np.ndarray) -> ModelProto:
    """The graph at `source` with every convolution and matrix product in int8, its ranges taken from `images`.

    images: (N, C, H, W) float32.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches: Iterator[np.ndarray] = iter(np.array_split(images, -(-len(images) // 16)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"images": np.ascontiguousarray(batch)}

    path = job.work / "full.int8.onnx"
    quantize_static(
        str(source),
        str(path),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
        },
    )
    model = onnx.load(path)
    path.unlink()
    return model


def head_layers(model: ModelProto) -> list[str]:
    """The matrix products of the classifier; everything before them is convolution."""
    return [node.name for node in model.graph.node if node.op_type in ("Gemm", "MatMul")]


def rank(
    job: Job, full: ModelProto, original: ModelProto, keep: list[str], images: np.ndarray, logits: np.ndarray
) -> list[str]:
    """Names of the quantised layers, the one first whose return to float brings the logits closest to the reference.

    images: (N, C, H, W) float32 training slices, so that the choice is not made on what the gate measures.
    logits: (N, classes) float32 of the reference.
    """
    scores = []
    candidates = [name for name in layers(full) if name not in keep]
    base = with_float_layers(full, keep, original)
    for position, name in enumerate(candidates):
        error = float(np.square(run(with_float_layers(base, [name], original), images, job.threads) - logits).mean())
        scores.append((error, position, name))
        if position % 10 == 9:
            job.say(f"int8: {position + 1} of {len(candidates)} layers tried")
    return [name for _, _, name in sorted(scores)]


def run(model: ModelProto, images: np.ndarray, threads: int) -> np.ndarray:
    """(N, classes) float32 logits of the graph in ONNX Runtime."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    parts = [session.run(None, {"images": np.ascontiguousarray(part)})[0] for part in np.array_split(images, 4)]
    logits: np.ndarray = np.concatenate(parts)
    return logits


def _few(evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """`RANKING_IMAGES` images, evenly spread, and their logits."""
    where = np.linspace(0, len(evidence.images) - 1, min(RANKING_IMAGES, len(evidence.images))).astype(int)
    return evidence.images[where], evidence.logits[where]


def _facts(job: Job, floated: list[str], verdict: Verdict) -> dict[str, Any]:
    """JSON-ready: what had a part in the graph, so that nobody need guess whether the gate's images had."""
    calibration, selection = job.calibration
    flips = {str(report["backend"]): report["flipped"] for report in verdict.reports}
    return {
        "calibrated_on": f"{len(calibration.images)} training slices of {calibration.source}",
        "float_layers_chosen_on": f"{len(selection.images)} other training slices of {selection.source}",
        "flipped_there": flips,
        "float_layers": floated,
    }
