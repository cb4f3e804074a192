"""`imagenet_state`: torchvision's ImageNet weights, from its cache or downloaded, and checked by SHA-256."""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
from pathlib import Path
from urllib.error import URLError

import torch

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.system.regular_files import read_regular


def url() -> str:
    """The URL of the weights. The file name ends with the first digits of its SHA-256."""
    from torchvision.models import ResNet50_Weights

    return str(ResNet50_Weights.IMAGENET1K_V1.url)


def imagenet_state() -> dict[str, torch.Tensor]:
    """The state dict. The file is read once and hashed before loading, and only tensors are unpickled.

    Raises CheckpointError if the file cannot be downloaded or is not the published one.
    """
    address = url()
    name = address.rsplit("/", 1)[-1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    published = name.rpartition("-")[2].partition(".")[0]
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(address, str(path), published, progress=False)
        content = read_regular(path)
    except (URLError, OSError, RuntimeError) as error:
        raise CheckpointError(
            f"torchvision's ImageNet weights are not cached and cannot be downloaded ({error}). Copy {name} to "
            f"{path.parent} and run again, give another file with --weights PATH, or start from random weights with "
            "--weights none."
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if not digest.startswith(published):
        raise CheckpointError(
            f"{path} has SHA-256 {digest[:12]}…, expected {published}… from its name: it is not the file that "
            "torchvision published. Not loaded. Delete it and run again to download it."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of invalid pickles, which are reported as an error below
            return dict(torch.load(io.BytesIO(content), "cpu", weights_only=True))
    except (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, EOFError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read as weights: {str(error).splitlines()[0]}. Delete it.") from error
