"""ONNX Runtime around the bundle's `.onnx` files, and around an int8 file of its own quantiser.

https://onnxruntime.ai/docs/performance/tune-performance/threading.html and …/model-optimizations/quantization.html:
static, per channel, Q/DQ, uint8 activations and int8 weights, which is the fast path on x86 with VNNI.
"""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stageproof.benchmarks.contenders.worker import Contender
from stageproof.benchmarks.peers.context import PATIENCE, Given
from stageproof.benchmarks.peers.peer import Peer, mode_of, usual_preprocessing
from stageproof.runtime.preprocess import InputSpec

_PROVIDERS = {"cpu": ("CPUExecutionProvider",), "cuda": ("CUDAExecutionProvider", "TensorrtExecutionProvider")}


def contenders(given: Given) -> tuple[list[Contender], list[str]]:
    """Each `.onnx` of the bundle, in each provider of the device that is here."""
    if find_spec("onnxruntime") is None:
        return [], ["plain ONNX Runtime was not measured: it needs onnxruntime."]
    import onnxruntime

    found, notes = [], []
    here = [name for name in _PROVIDERS[given.device] if name in onnxruntime.get_available_providers()]
    if not here:
        notes.append(f"plain ONNX Runtime was not measured on {given.device}: it has no provider for it.")
    precisions = ("fp32", "int8") if given.device == "cpu" else ("fp32", "fp16", "int8")
    for provider in here:
        for precision in precisions:
            artifact = given.onnx(precision)
            if artifact is None:
                notes.append(f"plain ONNX Runtime {precision} was not measured: the bundle has no such .onnx.")
                continue
            found.append(_contender(given, provider, precision, given.bundle / artifact.file, artifact.size_bytes))
    source = given.onnx("fp32")
    if given.device == "cpu" and source and here:
        if given.slow_peers and given.calibration:
            name = f"{given.manifest.model.digest[:16]}.u8s8.onnx"
            found.append(_contender(given, here[0], "int8", given.work / name, None, given.bundle / source.file))
        else:
            notes.append(f"ONNX Runtime's own int8 was not measured: {PATIENCE}.")
    return found, notes


def _contender(
    given: Given, provider: str, precision: str, file: Path, size: int | None, source: Path | None = None
) -> Contender:
    short = provider.removesuffix("ExecutionProvider")
    own = ", own quantiser" if source else ""
    return Contender(
        f"plain ONNX Runtime {precision}{own}{'' if short == 'CPU' else f', {short}'}",
        "peer",
        "onnx",
        precision,
        given.threads,
        f"{provider}, all graph optimisations, intra_op_num_threads={given.threads}"
        + (", static Q/DQ u8s8 per channel, min-max" if source else ", the bundle's file"),
        "stageproof.benchmarks.peers.onnx_runtime",
        {
            "file": file,
            "provider": provider,
            "spec": given.manifest.model.input,
            "threads": given.threads,
            "source": source,
            "calibration": given.calibration if source else (),
        },
        size,
    )


def load(
    file: Path, provider: str, spec: InputSpec, threads: int, source: Path | None, calibration: tuple[bytes, ...]
) -> Peer:
    """A session over `file`, which is quantised from `source` first where that is given and `file` is not there."""
    import onnxruntime

    preprocess = usual_preprocessing(spec)
    if source is not None and not file.exists():
        images = [preprocess(Image.open(io.BytesIO(image)).convert(mode_of(spec))) for image in calibration]
        _quantize(source, file, images)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=[provider], enable_fallback=0)
    name = session.get_inputs()[0].name

    def compute(images: list[np.ndarray]) -> Any:
        return session.run(None, {name: np.stack(images)})[0]

    return Peer(mode_of(spec), preprocess, compute)


def _quantize(source: Path, file: Path, images: list[np.ndarray]) -> None:
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._left, None)
            return None if image is None else {"images": image[None]}

    prepared = file.with_suffix(".prepared.onnx")
    staging = file.with_suffix(".staging.onnx")
    quant_pre_process(str(source), str(prepared))
    quantize_static(
        str(prepared),
        str(staging),
        Reader(),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    prepared.unlink()
    staging.replace(file)
