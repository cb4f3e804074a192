"""PyTorch in eager mode as a peer: the published snippet, and the memory format and precision that PyTorch recommends.

https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html and …/intermediate/memory_format_tutorial.html
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stageproof.benchmarks.contenders.worker import Contender
from stageproof.benchmarks.peers.context import NO_RUN, PeerContext
from stageproof.benchmarks.peers.peer import Peer, mode_of

SNIPPET = "published snippet (eager PyTorch)"
PUBLISHED_SIZE = 224
AS_PUBLISHED = f"snippet as published, {PUBLISHED_SIZE} × {PUBLISHED_SIZE}"
"""Additional contender for a model of another input size: what users ran before; at 224 × 224 it needs three times the
arithmetic of 128 × 128."""
_LOW = {"cpu": "bf16", "cuda": "fp16"}


def contenders(context: PeerContext) -> tuple[list[Contender], list[str]]:
    """The contenders: the snippet in fp32, channels_last in bf16 (fp16 on a GPU), and the snippet at its published size
    if the model's is another."""
    if context.run is None:
        return [], [f"{SNIPPET} was not measured: {NO_RUN}."]
    if find_spec("torchvision") is None:
        return [], [f"{SNIPPET} was not measured: it needs torchvision."]
    low = _LOW[context.device]
    settings = {
        "fp32": "PIL, torchvision transforms, eval, no_grad",
        low: f"the same, channels_last, autocast {low}, inference_mode",
    }
    found = [
        Contender(
            SNIPPET if precision == "fp32" else f"eager channels_last {precision}",
            "peer",
            "torch",
            precision,
            context.threads,
            described,
            "stageproof.benchmarks.peers.eager",
            {"run": context.run, "precision": precision, "device": context.device, "threads": context.threads},
        )
        for precision, described in settings.items()
    ]
    spec = context.manifest.model.input
    if (spec.height, spec.width) != (PUBLISHED_SIZE, PUBLISHED_SIZE):
        arguments = {**found[0].arguments, "size": PUBLISHED_SIZE}
        found.append(replace(found[0], name=AS_PUBLISHED, arguments=arguments, comparable=False))
    return found, []


def load(run: Path, precision: str, device: str, threads: int, size: int | None = None) -> Peer:
    """The peer with the run's network and weights. size: height and width to resize to; None: the network's own."""
    import torch

    model, transform, mode = prepared(run, device, threads, size)
    if precision == "fp32":

        def compute_fp32(tensors: list[Any]) -> Any:
            with torch.no_grad():
                return model(torch.stack(tensors).to(device)).cpu().numpy()

        return Peer(mode, transform, compute_fp32)
    model = model.to(memory_format=torch.channels_last)

    def compute(tensors: list[Any]) -> Any:
        images = torch.stack(tensors).to(device, memory_format=torch.channels_last)
        with torch.inference_mode(), lower(precision, device):
            return model(images).float().cpu().numpy()

    return Peer(mode, transform, compute)


def prepared(run: Path, device: str, threads: int, size: int | None = None) -> tuple[Any, Any, str]:
    """(model, torchvision transform, PIL image mode), shared by all PyTorch peers."""
    import torch
    from torchvision import transforms

    from stageproof.export.reference.model import from_run

    torch.set_num_threads(threads)
    reference = from_run(run)
    spec = reference.info.input
    transform = transforms.Compose(
        [
            transforms.Resize((size, size) if size else (spec.height, spec.width)),
            transforms.ToTensor(),
            transforms.Normalize(spec.mean, spec.std),
        ]
    )
    return reference.model.to(device), transform, mode_of(spec)


def lower(precision: str, device: str) -> AbstractContextManager[Any]:
    """Context manager for autocast to a lower precision; does nothing for fp32."""
    import torch

    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device, {"bf16": torch.bfloat16, "fp16": torch.float16}[precision])
