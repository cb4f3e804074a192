"""Measures the machine's peak performance: matrix products with the fastest installed library, and memory bandwidth.

Both are measured in the same run as the benchmarks they are compared with, because machines differ and drift. The
fastest of several runs counts, since other load only adds time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from stageproof.runtime.networks.spec import NetworkSpec

logger = logging.getLogger(__name__)

SIZES = (1024, 2048)
"""Rows and columns of the square matrices."""
LAYERS = 4
"""Number of matrix products in a chain, so that overhead around them is negligible."""
_SECONDS = 0.25
_COPIED = 256 * 1024 * 1024

Task = tuple[str, str, float, Callable[[], object]]
"""(precision, library and size, GFLOP per run, function for one run)."""


def gflop_per_image(network: NetworkSpec, shape: tuple[int, int, int]) -> float:
    """GFLOP of one forward pass of a (C, H, W) image; a multiply-add counts as two operations."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from stageproof.train.networks import construct

    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        construct(network).eval()(torch.empty(1, *shape))
    return counter.get_total_flops() / 1e9


def floors(threads: int, device: str) -> dict[str, dict[str, Any]]:
    """{precision: {gflop_s, how}} and {"memory": {gb_s, how}}, as described in `benchmarks.records.schema`.

    Sets the thread counts of the whole process, so run it in a separate process.
    """
    import torch

    torch.set_num_threads(threads)
    best: dict[str, dict[str, Any]] = {}
    for precision, how, gflop, run in _tasks(threads, device):
        rate = gflop / _fastest_seconds(run)
        logger.info(f"peak {precision} by {how}: {rate:.0f} GFLOP/s")
        if rate > best.get(precision, {"gflop_s": 0.0})["gflop_s"]:
            best[precision] = {"gflop_s": round(rate, 1), "how": f"matrix products by {how}"}
    source = torch.zeros(_COPIED // 4, device=device) + 1
    target = torch.empty_like(source)
    seconds = _fastest_seconds(_synchronised(partial(target.copy_, source), device))
    copied = 2 * _COPIED / seconds / 1e9  # one read and one write, as counted by STREAM
    best["memory"] = {"gb_s": round(copied, 1), "how": f"torch {torch.__version__}, copying {_COPIED >> 20} MiB"}
    return best


def _tasks(threads: int, device: str) -> Iterator[Task]:
    for size in SIZES:
        yield from _torch_tasks(size, device)
        if device == "cpu" and find_spec("openvino") is not None:
            yield from _openvino_tasks(size, threads)


def _torch_tasks(size: int, device: str) -> Iterator[Task]:
    import torch

    how = f"torch {torch.__version__.split('+')[0]}, {size} × {size}"
    gflop = 2 * size**3 / 1e9
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if device == "cuda":
        dtypes["fp16"] = torch.float16
    for precision, dtype in dtypes.items():
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        yield precision, how, gflop, _synchronised(partial(torch.mm, left, right), device)
    first, second = (torch.randint(-100, 100, (size, size), dtype=torch.int8, device=device) for _ in range(2))
    yield "int8", how, gflop, _synchronised(partial(torch._int_mm, first, second.T), device)


def _openvino_tasks(size: int, threads: int) -> Iterator[Task]:
    from stageproof.runtime.system.offline_import import import_without

    openvino = import_without("openvino", "openvino_telemetry")
    core = openvino.Core()
    image = np.random.default_rng(0).random((size, size), np.float32)
    how = f"openvino {openvino.__version__.split('-')[0]}, {size} × {size}"
    for precision, hint in (("fp32", "f32"), ("bf16", "bf16"), ("int8", "f32")):
        model = _chain(openvino, size, quantised=precision == "int8")
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": hint,
        }
        compiled = core.compile_model(model, "CPU", settings)
        if precision == "int8" and not _runs_in_int8(compiled):
            continue  # it ran in float, so it does not measure int8
        request = compiled.create_infer_request()
        yield (
            precision,
            how,
            LAYERS * 2 * size**3 / 1e9,
            partial(request.infer, [image], share_inputs=True),
        )


def _chain(openvino: Any, size: int, quantised: bool) -> Any:
    """Model with `LAYERS` matrix products with constant weights, each followed by a ReLU; if quantised, both operands
    are int8."""
    from openvino import opset13 as ops

    rng = np.random.default_rng(1)
    image = ops.parameter([size, size], np.float32)
    result = image
    for _ in range(LAYERS):
        if quantised:
            low, high = np.float32(0), np.float32(2.55)
            result = ops.fake_quantize(result, low, high, low, high, 256)
            stored = ops.constant(rng.integers(-127, 127, (size, size), np.int8, endpoint=True))
            scale = np.full((size, 1), 1e-3, np.float32)
            weights = ops.multiply(ops.convert(stored, "f32"), ops.constant(scale))
        else:
            weights = ops.constant(rng.standard_normal((size, size), np.float32) / np.float32(size))
        result = ops.relu(ops.matmul(result, weights, False, True))
    return openvino.Model([result], [image])


def _runs_in_int8(compiled: Any) -> bool:
    kinds = [
        op.get_rt_info()["runtimePrecision"].value
        for op in compiled.get_runtime_model().get_ops()
        if op.get_rt_info()["layerType"].value in ("FullyConnected", "MatMul")
    ]
    return len(kinds) >= LAYERS and set(kinds) <= {"i8", "u8"}


def _synchronised(run: Callable[[], object], device: str) -> Callable[[], object]:
    """`run`, followed by a synchronisation on a GPU."""
    if device == "cpu":
        return run
    import torch

    def waited() -> None:
        run()
        torch.cuda.synchronize()

    return waited


def _fastest_seconds(run: Callable[[], object]) -> float:
    """Time of the fastest run in seconds, of at least 3 runs or `_SECONDS`, after one untimed run."""
    run()
    times: list[float] = []
    while len(times) < 3 or sum(times) < _SECONDS:
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return min(times)
