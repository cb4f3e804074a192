"""OpenVINO as a peer: the bundle's `.onnx` files with the latency hint and normalisation compiled into the model.

https://docs.openvino.ai/…/openvino-workflow/running-inference/optimize-inference/high-level-performance-hints.html and
…/optimize-preprocessing.html. By default OpenVINO runs float32 files in bf16 on CPUs with bf16 instructions.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stageproof.benchmarks.contenders.worker import Contender
from stageproof.benchmarks.peers.context import PeerContext
from stageproof.benchmarks.peers.peer import Peer, mode_of
from stageproof.runtime.preprocess import InputSpec

_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": None}


def contenders(context: PeerContext) -> tuple[list[Contender], list[str]]:
    """The contenders: fp32 (enforced), bf16, and the bundle's int8 file with OpenVINO's default precision."""
    if context.device != "cpu":
        return [], []
    if find_spec("openvino") is None:
        return [], ["plain OpenVINO was not measured: it needs openvino."]
    found, notes = [], []
    for precision, hint in _HINTS.items():
        artifact = context.onnx("int8" if precision == "int8" else "fp32")
        if artifact is None:
            notes.append(f"plain OpenVINO {precision} was not measured: the bundle has no such .onnx.")
            continue
        found.append(
            Contender(
                f"plain OpenVINO {precision}",
                "peer",
                "openvino",
                precision,
                context.threads,
                f"PERFORMANCE_HINT=LATENCY, INFERENCE_NUM_THREADS={context.threads}, "
                f"{f'INFERENCE_PRECISION_HINT={hint}' if hint else 'precision left to it'}, PrePostProcessor, the "
                f"bundle's {artifact.file}",
                "stageproof.benchmarks.peers.openvino",
                {
                    "file": context.bundle / artifact.file,
                    "hint": hint,
                    "spec": context.manifest.model.input,
                    "threads": context.threads,
                },
                artifact.size_bytes,
            )
        )
    return found, notes


def load(file: Path, hint: str | None, spec: InputSpec, threads: int) -> Peer:
    """The peer with the file compiled for uint8 NHWC input of the model's size."""
    from stageproof.runtime.system.offline_import import import_without

    openvino = import_without("openvino", "openvino_telemetry")
    from openvino.preprocess import PrePostProcessor

    core = openvino.Core()
    stages = PrePostProcessor(core.read_model(file))
    stages.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    stages.input().model().set_layout(openvino.Layout("NCHW"))
    scale = [255 * value for value in spec.std]
    stages.input().preprocess().convert_element_type(openvino.Type.f32).mean(
        [255 * value for value in spec.mean]
    ).scale(scale)
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    if hint:
        settings["INFERENCE_PRECISION_HINT"] = hint
    request = core.compile_model(stages.build(), "CPU", settings).create_infer_request()

    def preprocess(picture: Image.Image) -> np.ndarray:
        pixels = np.asarray(picture.resize((spec.width, spec.height), Image.Resampling.BILINEAR))
        return pixels.reshape(spec.height, spec.width, spec.channels)

    def compute(images: list[np.ndarray]) -> Any:
        request.infer([np.stack(images)], share_inputs=True)
        return np.array(request.get_output_tensor(0).data)

    return Peer(mode_of(spec), preprocess, compute)
