"""torch.compile as a peer: frozen weights on the CPU, max-autotune on a GPU.

https://docs.pytorch.org/docs/stable/torch.compiler_inductor_profiling.html; freezing: torch/_inductor/config.py
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stageproof.benchmarks.contenders.worker import Contender
from stageproof.benchmarks.peers.context import NO_RUN, SLOW_TO_PREPARE, PeerContext
from stageproof.benchmarks.peers.eager import lower, prepared
from stageproof.benchmarks.peers.peer import Peer

_SETTINGS = {
    "cpu": "torch.compile, channels_last, freezing",
    "cuda": "torch.compile(mode='max-autotune'), channels_last",
}


def contenders(context: PeerContext) -> tuple[list[Contender], list[str]]:
    """The contenders: fp32 and bf16 (fp16 on a GPU)."""
    reason = None
    if context.run is None:
        reason = NO_RUN
    elif not context.slow_peers:
        reason = SLOW_TO_PREPARE
    elif find_spec("torchvision") is None:
        reason = "it needs torchvision"
    if reason:
        return [], [f"torch.compile was not measured: {reason}."]
    precisions = ("fp32", "bf16" if context.device == "cpu" else "fp16")
    return [
        Contender(
            f"torch.compile {precision}",
            "peer",
            "torch",
            precision,
            context.threads,
            _SETTINGS[context.device] + ("" if precision == "fp32" else f", autocast {precision}"),
            "stageproof.benchmarks.peers.compiled",
            {
                "run": context.run,
                "precision": precision,
                "device": context.device,
                "threads": context.threads,
                "cache": context.work / "inductor",
            },
            batches=(1, 8),
        )
        for precision in precisions
    ], []


def load(run: Path, precision: str, device: str, threads: int, cache: Path) -> Peer:
    """The peer, compiled for batch size 1; other batch sizes are compiled when first used."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)  # the default is never deleted
    import torch
    import torch._inductor.config

    model, transform, mode = prepared(run, device, threads)
    model = model.to(memory_format=torch.channels_last)
    torch._inductor.config.freezing = device == "cpu"
    run_compiled = torch.compile(model, mode=None if device == "cpu" else "max-autotune", dynamic=False)

    def compute(tensors: list[Any]) -> Any:
        images = torch.stack(tensors).to(device, memory_format=torch.channels_last)
        with torch.no_grad(), lower(precision, device):
            return run_compiled(images).float().cpu().numpy()

    spec_shape = transform_shape(transform)
    compute([torch.zeros(spec_shape)])
    return Peer(mode, transform, compute)


def transform_shape(transform: Any) -> tuple[int, int, int]:
    """(C, H, W), the output shape of the transform."""
    resize, _, normalise = transform.transforms
    return len(normalise.mean), *resize.size
