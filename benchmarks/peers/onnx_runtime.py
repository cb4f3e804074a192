"""ONNX Runtime as a peer: with the bundle's `.onnx` files, and with an int8 file of its own quantiser.

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
from stageproof.benchmarks.peers.context import SLOW_TO_PREPARE, PeerContext
from stageproof.benchmarks.peers.peer import Peer, mode_of, standard_preprocessing
from stageproof.runtime.preprocess import InputSpec
from stageproof.runtime.system.offline_import import import_onnxruntime

_PROVIDERS = {"cpu": ("CPUExecutionProvider",), "cuda": ("CUDAExecutionProvider", "TensorrtExecutionProvider")}


def contenders(context: PeerContext) -> tuple[list[Contender], list[str]]:
    """The contenders: each `.onnx` of the bundle in each available execution provider of the device."""
    if find_spec("onnxruntime") is None:
        return [], ["plain ONNX Runtime was not measured: it needs onnxruntime."]
    onnxruntime = import_onnxruntime()

    found, notes = [], []
    providers = [name for name in _PROVIDERS[context.device] if name in onnxruntime.get_available_providers()]
    if not providers:
        notes.append(f"plain ONNX Runtime was not measured: no execution provider for {context.device} is installed.")
    precisions = ("fp32", "int8") if context.device == "cpu" else ("fp32", "fp16", "int8")
    for provider in providers:
        for precision in precisions:
            artifact = context.onnx(precision)
            if artifact is None:
                notes.append(f"plain ONNX Runtime {precision} was not measured: the bundle has no such .onnx.")
                continue
            found.append(_contender(context, provider, precision, context.bundle / artifact.file, artifact.size_bytes))
    source = context.onnx("fp32")
    if context.device == "cpu" and source and providers:
        if context.slow_peers and context.calibration:
            name = f"{context.manifest.model.digest[:16]}.u8s8.onnx"
            found.append(
                _contender(context, providers[0], "int8", context.work / name, None, context.bundle / source.file)
            )
        else:
            notes.append(f"ONNX Runtime's own int8 was not measured: {SLOW_TO_PREPARE}.")
    return found, notes


def _contender(
    context: PeerContext, provider: str, precision: str, file: Path, size: int | None, source: Path | None = None
) -> Contender:
    short = provider.removesuffix("ExecutionProvider")
    own = ", own quantiser" if source else ""
    return Contender(
        f"plain ONNX Runtime {precision}{own}{'' if short == 'CPU' else f', {short}'}",
        "peer",
        "onnx",
        precision,
        context.threads,
        f"{provider}, all graph optimisations, intra_op_num_threads={context.threads}"
        + (", static Q/DQ u8s8 per channel, min-max" if source else ", the bundle's file"),
        "stageproof.benchmarks.peers.onnx_runtime",
        {
            "file": file,
            "provider": provider,
            "spec": context.manifest.model.input,
            "threads": context.threads,
            "source": source,
            "calibration": context.calibration if source else (),
        },
        size,
    )


def load(
    file: Path, provider: str, spec: InputSpec, threads: int, source: Path | None, calibration: tuple[bytes, ...]
) -> Peer:
    """The peer with a session for `file`, which is quantised from `source` if given and `file` does not exist."""
    onnxruntime = import_onnxruntime()

    preprocess = standard_preprocessing(spec)
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
    import_onnxruntime()
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
