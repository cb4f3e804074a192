"""OpenVINO int8 as a peer: the bundle's float32 `.onnx` with NNCF's post-training quantisation, as documented.

https://docs.openvino.ai/…/openvino-workflow/model-optimization-guide/quantizing-models-post-training.html
"""

from __future__ import annotations

import io
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from stageproof.benchmarks.contenders.worker import Contender
from stageproof.benchmarks.peers import openvino
from stageproof.benchmarks.peers.context import SLOW_TO_PREPARE, PeerContext
from stageproof.benchmarks.peers.peer import Peer, mode_of, standard_preprocessing
from stageproof.runtime.preprocess import InputSpec

NAME = "plain OpenVINO int8, own quantiser"


def contenders(context: PeerContext) -> tuple[list[Contender], list[str]]:
    """The contender: int8 with NNCF's defaults, run like the files in `benchmarks.peers.openvino`."""
    source = context.onnx("fp32")
    reason = None
    if source is None:
        reason = "the bundle has no float32 .onnx"
    elif find_spec("openvino") is None or find_spec("nncf") is None:
        reason = "it needs NNCF: pip install 'stageproof[openvino,nncf]'"
    elif not (context.slow_peers and context.calibration):
        reason = SLOW_TO_PREPARE
    if context.device != "cpu" or source is None or reason:
        return [], [f"{NAME} was not measured: {reason}."] if context.device == "cpu" else []
    (float32, *_), _ = openvino.contenders(context)
    file = context.work / f"{context.manifest.model.digest[:16]}.nncf.xml"
    settings = float32.settings.replace("INFERENCE_PRECISION_HINT=f32", "precision left to it")
    return [
        replace(
            float32,
            name=NAME,
            precision="int8",
            settings=f"{settings} by nncf.quantize with its defaults",
            module="stageproof.benchmarks.peers.nncf",
            arguments={
                **float32.arguments,
                "file": file,
                "hint": None,
                "source": context.bundle / source.file,
                "calibration": context.calibration,
            },
            file_bytes=None,
        )
    ], []


def load(
    file: Path, hint: str | None, spec: InputSpec, threads: int, source: Path, calibration: tuple[bytes, ...]
) -> Peer:
    """The peer of `benchmarks.peers.openvino` for `file`, which is quantised from `source` if it does not exist."""
    if not file.exists():
        _quantise(source, file, spec, calibration)
    return openvino.load(file, hint, spec, threads)


def _quantise(source: Path, file: Path, spec: InputSpec, calibration: tuple[bytes, ...]) -> None:
    from stageproof.runtime.system.offline_import import import_without

    # Both send telemetry to Intel (Google Analytics) unless the package openvino_telemetry cannot be imported.
    library = import_without("openvino", "openvino_telemetry")
    nncf = import_without("nncf", "openvino_telemetry")
    preprocess = standard_preprocessing(spec)
    images = [preprocess(Image.open(io.BytesIO(image)).convert(mode_of(spec)))[None] for image in calibration]
    quantised = nncf.quantize(library.Core().read_model(source), nncf.Dataset(images), subset_size=len(images))
    staging = file.with_suffix(".staging.xml")
    library.save_model(quantised, staging, compress_to_fp16=False)
    staging.with_suffix(".bin").replace(file.with_suffix(".bin"))
    staging.replace(file)
