"""TensorRT engines, for both libraries with the same code: TensorRT (`tensorrt`) and TensorRT for RTX.

TensorRT builds for the GPU of this machine. TensorRT for RTX builds on any machine for given compute capabilities.
Networks are strongly typed: the ONNX graph determines the precision, not the builder's flags.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stageproof.export.formats.built import Built, Found
from stageproof.export.formats.graph_store import graph
from stageproof.export.hashed_files import write
from stageproof.export.quantization.qdq_edit import with_signed_activations
from stageproof.runtime.backends.tensorrt import FLAVOURS
from stageproof.runtime.errors import BackendUnavailable, ExportError

if TYPE_CHECKING:
    from stageproof.export.reference.context import Job

NAME = "tensorrt"
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
SUFFIX = ".engine"
REQUIRES = {"|".join(FLAVOURS): "tensorrt-rtx", "onnx": "export", "onnxscript": "export"}
NEEDS_GPU = True
PIXELS = False

LARGEST_BATCH = 32
_PIECE = 64
"""Number of bytes of a weight that are searched for in an engine."""


def build(job: Job, precision: str, path: Path) -> Built:
    """The result of writing an engine for batches of 1 to 32. Raises ExportError if parsing or building fails."""
    module, flavour = _library()
    stored = graph(job, precision)
    source = _signed(job, stored.path) if precision == "int8" else stored.path
    messages: list[str] = []
    logger = _logger(module, messages)
    builder = module.Builder(logger)
    network = builder.create_network(_strongly_typed(module))
    parser = module.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source)):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise ExportError(f"{flavour} {module.__version__} cannot read {source.name}: {'; '.join(reasons)}")
    config = builder.create_builder_config()
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    capability = _target(module, config, job.options.compute_capability)
    requires = {"flavour": flavour, "version": module.__version__, "compute_capability": capability}
    requires |= _compatible(module, config, flavour) if job.options.compatible else {}
    cache = job.options.timing_cache
    if cache:
        _read_timing_cache(config, flavour, cache)
    profile = builder.create_optimization_profile()
    shape = job.reference.info.input.shape
    profile.set_shape(network.get_input(0).name, (1, *shape), (1, *shape), (LARGEST_BATCH, *shape))
    config.add_optimization_profile(profile)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise ExportError(f"{flavour} {module.__version__} built no engine for {capability}: {'; '.join(messages)}")
    digest = write(path, bytes(memoryview(serialized)))
    try:
        found = inspect(path)
    except BackendUnavailable:
        found = found_weights(path, source)
    if cache:
        write(cache, bytes(memoryview(config.get_timing_cache().serialize())))
    requires["batch"] = f"1-{LARGEST_BATCH}"
    return Built({path.name: digest}, requires, quantisation=stored.quantisation, found=found)


def inspect(path: Path) -> Found:
    """The type of each layer with weights, from the engine inspector. Raises BackendUnavailable without a GPU."""
    module, flavour = _library()
    messages: list[str] = []
    engine = module.Runtime(_logger(module, messages)).deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise BackendUnavailable(f"{flavour} cannot open {path.name} here: {' '.join(messages)[:200]}")
    text = engine.create_engine_inspector().get_engine_information(module.LayerInformationFormat.JSON)
    return Found.count(list(_layer_types(json.loads(text))))


def found_weights(path: Path, graph: Path) -> Found:
    """The types of those weights of the ONNX graph whose bytes occur in the engine file. Needs no GPU.

    The library stores a convolution's weights unchanged or channels-last, and reorders some for its kernels. Raises
    ExportError if fewer than half are found, since the engine then does not use the types of the graph.
    """
    import onnx as library
    from onnx import numpy_helper

    content = path.read_bytes()
    types = library.TensorProto
    names = {types.FLOAT: "fp32", types.FLOAT16: "fp16", types.BFLOAT16: "bf16"}
    names |= {types.INT8: "int8", types.FLOAT8E4M3FN: "fp8"}
    weights = [tensor for tensor in library.load(graph).graph.initializer if len(tensor.dims) >= 2]
    found = []
    for tensor in weights:
        values = numpy_helper.to_array(tensor)
        if any(_middle(layout.tobytes()) in content for layout in (values, np.moveaxis(values, 1, -1))):
            found.append(names.get(tensor.data_type, "other"))
    if len(found) * 2 < len(weights):
        raise ExportError(
            f"{path.name} contains {len(found)} of {len(weights)} weights of {graph.name} in their type, expected at "
            "least half. Not added to the bundle."
        )
    return Found.count(found)


def _middle(raw: bytes) -> bytes:
    return raw[len(raw) // 2 :][:_PIECE]


def _signed(job: Job, source: Path) -> Path:
    """The int8 graph with signed activations, the only type that TensorRT supports."""
    import onnx as library

    signed = job.work / "int8.signed.onnx"
    write(signed, with_signed_activations(library.load(source)).SerializeToString())
    return signed


def _library() -> tuple[Any, str]:
    """The installed library and its flavour. Raises BackendUnavailable if none is installed."""
    for name, flavour in FLAVOURS.items():
        if find_spec(name):
            return import_module(name), flavour
    raise BackendUnavailable("TensorRT is not installed: pip install 'stageproof[tensorrt-rtx]'.")


def _logger(module: Any, messages: list[str]) -> Any:
    """A logger that appends errors to `messages` and prints nothing."""

    class Logger(module.ILogger):
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(module.ILogger.ERROR):
                messages.append(message)

    return Logger()


def _strongly_typed(module: Any) -> int:
    """The flag for a strongly typed network; 0 for TensorRT 11, which has no other kind."""
    flag = getattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _target(module: Any, config: Any, wanted: Sequence[str]) -> str:
    """Compute capabilities that the engine is built for; sets them in `config` if the library supports it."""
    if not hasattr(config, "num_compute_capabilities"):
        return _this_gpu()
    config.num_compute_capabilities = len(wanted)
    for index, name in enumerate(wanted):
        capability = getattr(module.ComputeCapability, "SM" + name.replace(".", ""), None)
        if capability is None:
            known = sorted(n for n in dir(module.ComputeCapability) if n.startswith("SM"))
            there = ", ".join(f"{n[2:-1]}.{n[-1]}" for n in known)
            raise ExportError(f"--compute-capability {name} is not supported by this library. Supported: {there}.")
        config.set_compute_capability(capability, index)
    return ", ".join(wanted)


def _compatible(module: Any, config: Any, flavour: str) -> dict[str, str]:
    """Entries for the manifest; configures an engine that newer TensorRT versions and GPUs can run."""
    if flavour != "tensorrt":
        raise BackendUnavailable(
            f"{flavour} does not support --compatible. Give all compute capabilities: --compute-capability 8.9 12.0."
        )
    config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    return {"compatible": "newer versions, compute capability 8.0 and later"}


def _read_timing_cache(config: Any, flavour: str, path: Path) -> None:
    """Use the timing cache at `path`, or an empty one if the file does not exist."""
    if flavour != "tensorrt":
        raise BackendUnavailable(f"{flavour} does not support --timing-cache: it times no kernels. Leave it out.")
    config.set_timing_cache(config.create_timing_cache(path.read_bytes() if path.exists() else b""), False)


def _this_gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        raise BackendUnavailable(
            "TensorRT builds for the GPU of this machine, and there is none. TensorRT for RTX builds without a GPU: "
            "pip install 'stageproof[tensorrt-rtx]'."
        )
    return "{}.{}".format(*torch.cuda.get_device_capability())


def _layer_types(information: dict[str, Any]) -> Iterator[str]:
    """Yields the precision of each layer with weights of an engine, from the type of its first input."""
    names = {"Float": "fp32", "FP32": "fp32", "Half": "fp16", "FP16": "fp16", "BFloat16": "bf16", "Int8": "int8"}
    names["FP8"] = "fp8"
    for layer in information.get("Layers", []):
        if not isinstance(layer, dict) or "Weights" not in layer:
            continue
        datatype = str((layer.get("Inputs") or [{}])[0].get("Format/Datatype", "other"))
        yield next((ours for theirs, ours in names.items() if theirs in datatype), "other")
