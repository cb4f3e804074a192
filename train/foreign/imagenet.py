"""`imagenet_state`: torchvision's ImageNet weights of a network, from its cache or downloaded, checked by SHA-256."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError

import torch

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.system.regular_files import read_regular

VERSION = "IMAGENET1K_V1"
"""torchvision's first weights of a network, trained from random ones at 224 × 224 (Inception: 299)."""
_RENAMED = (
    (r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2"),
    (r"mlp\.linear_1\.", "mlp.0."),
    (r"mlp\.linear_2\.", "mlp.3."),
    (r"(?<=\.)_orig_mod\.", ""),
)
"""Layers of DenseNet and ViT, as earlier torchvision versions named them and published files still do; and what
torch.compile adds."""
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""Auxiliary classifiers of GoogLeNet and Inception, which are not built here."""


def url(architecture: str) -> str:
    """The URL of the weights. The file name ends with the first digits of its SHA-256. Raises CheckpointError if
    torchvision has none."""
    from torchvision import models

    if architecture not in models.list_models(module=models):
        raise CheckpointError(
            f"--weights imagenet: torchvision has no weights of {architecture}. Leave --weights out, or give a file "
            f"with weights of {architecture}."
        )
    known = models.get_model_weights(architecture).__members__
    if VERSION not in known:
        raise CheckpointError(
            f"--weights imagenet: torchvision has no weights {VERSION} of {architecture}, only {', '.join(known)}, "
            "which are not loaded by name because of their licence. Give a file with --weights PATH."
        )
    return str(known[VERSION].url)


def imagenet_state(architecture: str) -> dict[str, torch.Tensor]:
    """The state dict with the current names of the layers, without auxiliary classifiers. The file is read once and
    hashed before loading, and only tensors are unpickled.

    Raises CheckpointError if there are no such weights, or if the file cannot be downloaded or is not the published
    one.
    """
    address = url(architecture)
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
            state = torch.load(io.BytesIO(content), "cpu", weights_only=True)
        return current_names(without_auxiliary(state))
    except (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, EOFError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read as weights: {str(error).splitlines()[0]}. Delete it.") from error


def without_auxiliary(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a torchvision file without those of auxiliary classifiers."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(_AUXILIARY)}


def current_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a network of torchvision under the names of today's torchvision, and without what torch.compile
    adds to the names of layers compiled alone."""
    named = {}
    for name, tensor in state.items():
        for old, new in _RENAMED:
            name = re.sub(old, new, name)
        named[name] = tensor
    return named
