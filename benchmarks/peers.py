"""What users would run instead, each as its own source runs it."""

from __future__ import annotations

import io

from benchmarks.measure import Contender
from export.reference import Reference


def published_snippet(reference: Reference, threads: int) -> Contender:
    """The code that public projects on this dataset predict with: PIL, torchvision transforms, eager PyTorch."""
    import torch
    from PIL import Image
    from torchvision import transforms

    torch.set_num_threads(threads)
    spec = reference.info.input
    transform = transforms.Compose(
        [
            transforms.Resize((spec.height, spec.width)),
            transforms.ToTensor(),
            transforms.Normalize(spec.mean, spec.std),
        ]
    )
    mode = "RGB" if spec.channels == 3 else "L"

    def answer(image: bytes) -> list[float]:
        tensor = transform(Image.open(io.BytesIO(image)).convert(mode)).unsqueeze(0)
        with torch.no_grad():
            return list(torch.softmax(reference.model(tensor), 1)[0].tolist())

    return answer
