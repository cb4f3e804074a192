"""May an engine see this file? Formats that carry code need trust; of all, what is declared is compared with what is
there. docs/SECURITY-MODELS.md says what this finds and what it cannot."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

from stageproof.runtime.artifacts.entries import TENSOR
from stageproof.runtime.artifacts.verified_bytes import CODE, ModelFile
from stageproof.runtime.errors import BundleError, TrustError


def assert_harmless(model: ModelFile, format_name: str, *, trust_code: bool) -> None:
    """Raise TrustError for a format that carries code, unless it is trusted, and BundleError, saying what was found,
    for a file of a kind that no export of this project writes, trusted or not."""
    if format_name in CODE and not trust_code:
        raise TrustError(untrusted(model.path, format_name))
    try:
        if format_name == "onnx":
            from stageproof.runtime.artifacts.onnx_file import examine
            from stageproof.runtime.artifacts.onnx_sizes import assert_bounded

            graph = examine(model.content, pixels=model.takes != TENSOR)
            if model.takes == TENSOR:
                assert_bounded(graph)
        elif format_name == "openvino":
            from stageproof.runtime.artifacts.openvino_file import examine as examine_network

            examine_network(model.content, model.weights or b"", pixels=model.takes != TENSOR)
        elif format_name in ("torchscript", "torch-export"):
            from stageproof.runtime.artifacts.torch_archive import examine as examine_archive

            examine_archive(model.content, format_name)
    except (ValueError, RecursionError, KeyError, EOFError, OverflowError, SyntaxError, NotImplementedError) as error:
        raise BundleError(f"{model} was not loaded: {error}. Copy the bundle again, or export again.") from error
    except (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError) as error:
        raise BundleError(f"{model} was not loaded: {error}. Copy the bundle again, or export again.") from error


def untrusted(path: Path, format_name: str) -> str:
    """Why a file was not loaded, and what to do."""
    return (
        f"{path} carries code: {CODE[format_name]}. It is not loaded without trust_code=True (--trust-code). Serve an "
        "artifact of data (.onnx, .xml, .safetensors) instead; or, if you made the bundle or know who did, say so by "
        "trust_code=True, best with trusted_key or trusted_digest."
    )


def lone(path: Path, format_name: str) -> str:
    """Why a lone file that carries code is never loaded, and what to do."""
    return (
        f"{path} carries code: {CODE[format_name]}. A lone file of this kind is never loaded, since nothing shows that "
        "it is what was exported. Give its bundle, with trust_code=True (--trust-code) if you trust whoever made it; "
        "or an artifact of data (.onnx, .xml, .safetensors)."
    )
