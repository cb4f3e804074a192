"""PyTorch as it stands: the published snippet, and the same model in the layout and precision PyTorch recommends.

https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html and …/intermediate/memory_format_tutorial.html
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.peers.given import NO_RUN, Given
from benchmarks.peers.peer import Peer, mode_of
from benchmarks.worker import Contender

SNIPPET = "published snippet (eager PyTorch)"
_LOW = {"cpu": "bf16", "cuda": "fp16"}


def contenders(given: Given) -> tuple[list[Contender], list[str]]:
    """The snippet in float32, and channels_last in bf16 (fp16 on a GPU)."""
    if given.run is None:
        return [], [f"{SNIPPET} was not measured: {NO_RUN}."]
    if find_spec("torchvision") is None:
        return [], [f"{SNIPPET} was not measured: it needs torchvision."]
    low = _LOW[given.device]
    settings = {
        "fp32": "PIL, torchvision transforms, eval, no_grad",
        low: f"the same, channels_last, autocast {low}, inference_mode",
    }
    return [
        Contender(
            SNIPPET if precision == "fp32" else f"eager channels_last {precision}",
            "peer",
            "torch",
            precision,
            given.threads,
            said,
            "benchmarks.peers.eager",
            {"run": given.run, "precision": precision, "device": given.device, "threads": given.threads},
        )
        for precision, said in settings.items()
    ], []


def load(run: Path, precision: str, device: str, threads: int) -> Peer:
    """The run's own weights in its own network."""
    import torch

    model, transform, mode = prepared(run, device, threads)
    if precision == "fp32":

        def plainly(tensors: list[Any]) -> Any:
            with torch.no_grad():
                return model(torch.stack(tensors).to(device)).cpu().numpy()

        return Peer(mode, transform, plainly)
    model = model.to(memory_format=torch.channels_last)

    def compute(tensors: list[Any]) -> Any:
        images = torch.stack(tensors).to(device, memory_format=torch.channels_last)
        with torch.inference_mode(), lower(precision, device):
            return model(images).float().cpu().numpy()

    return Peer(mode, transform, compute)


def prepared(run: Path, device: str, threads: int) -> tuple[Any, Any, str]:
    """(model, torchvision transform, mode of the picture) that all peers in PyTorch start from."""
    import torch
    from torchvision import transforms

    from export.reference import from_run

    torch.set_num_threads(threads)
    reference = from_run(run)
    spec = reference.info.input
    transform = transforms.Compose(
        [
            transforms.Resize((spec.height, spec.width)),
            transforms.ToTensor(),
            transforms.Normalize(spec.mean, spec.std),
        ]
    )
    return reference.model.to(device), transform, mode_of(spec)


def lower(precision: str, device: str) -> AbstractContextManager[Any]:
    """Autocast to a lower precision; nothing for fp32."""
    import torch

    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device, {"bf16": torch.bfloat16, "fp16": torch.float16}[precision])
