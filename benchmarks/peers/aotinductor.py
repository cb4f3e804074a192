"""AOTInductor as a peer: the run's network compiled ahead of time to a package for this CPU or GPU.

https://docs.pytorch.org/docs/stable/torch.compiler_aot_inductor.html
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stageproof.benchmarks.contenders.worker import Contender
from stageproof.benchmarks.peers.compiled import transform_shape
from stageproof.benchmarks.peers.context import NO_RUN, SLOW_TO_PREPARE, PeerContext
from stageproof.benchmarks.peers.eager import lower, prepared
from stageproof.benchmarks.peers.peer import Peer


def contenders(context: PeerContext) -> tuple[list[Contender], list[str]]:
    """The contenders: fp32 and bf16 (fp16 on a GPU)."""
    from stageproof.export.formats.aotinductor import (
        COMPILERS,  # imported here, since it imports torch, which processes of other peers do not need
    )

    reason = None
    if context.run is None:
        reason = NO_RUN
    elif not context.slow_peers:
        reason = SLOW_TO_PREPARE
    elif find_spec("torchvision") is None:
        reason = "it needs torchvision"
    elif not any(map(shutil.which, [os.environ.get("CXX", ""), *COMPILERS])):
        reason = f"it needs a C++ compiler ({' or '.join(COMPILERS)})"
    if reason:
        return [], [f"AOTInductor was not measured: {reason}."]
    return [
        Contender(
            f"AOTInductor {precision}",
            "peer",
            "aotinductor",
            precision,
            context.threads,
            "aoti_compile_and_package, channels_last, "
            + ("freezing" if context.device == "cpu" else "max_autotune")
            + ("" if precision == "fp32" else f", autocast {precision}"),
            "stageproof.benchmarks.peers.aotinductor",
            {
                "run": context.run,
                "precision": precision,
                "device": context.device,
                "threads": context.threads,
                "work": context.work,
                "digest": context.manifest.model.digest,
            },
            batches=(1,),
        )
        for precision in ("fp32", "bf16" if context.device == "cpu" else "fp16")
    ], []


def load(run: Path, precision: str, device: str, threads: int, work: Path, digest: str) -> Peer:
    """The peer with a package for batch size 1; the package is compiled to `work` unless it exists there."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(work / "inductor")
    import torch
    import torch._inductor

    model, transform, mode = prepared(run, device, threads)
    package = work / f"{digest[:16]}-{device}-{precision}-{torch.__version__}.pt2"
    if not package.exists():
        model = model.to(memory_format=torch.channels_last)
        example = torch.zeros(1, *transform_shape(transform), device=device).to(memory_format=torch.channels_last)
        with torch.no_grad(), lower(precision, device):
            program = torch.export.export(model, (example,))
            settings = {"freezing": True} if device == "cpu" else {"max_autotune": True}
            staging = package.with_name(f"staging-{package.name}")
            torch._inductor.aoti_compile_and_package(program, package_path=str(staging), inductor_configs=settings)
        staging.replace(package)
    compiled = torch._inductor.aoti_load_package(str(package))

    def compute(tensors: list[Any]) -> Any:
        answers = []
        with torch.inference_mode():
            for tensor in tensors:
                image = tensor[None].to(device, memory_format=torch.channels_last)
                answers.append(compiled(image).float().cpu())
        return torch.cat(answers).numpy()

    return Peer(mode, transform, compute)
