"""Inspection of an artifact before an engine loads it: formats that contain code require trust, and in all formats
declared sizes are compared with the content. docs/SECURITY-MODELS.md lists what this detects and what it does not."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

from stageproof.runtime.artifacts.entries import TENSOR
from stageproof.runtime.artifacts.verified_bytes import CODE, ModelFile
from stageproof.runtime.errors import BundleError, TrustError


def assert_harmless(model: ModelFile, format_name: str, *, trust_code: bool) -> None:
    """Raise TrustError for a format that contains code, unless `trust_code`, and BundleError, naming the finding, for
    content that no export of this project writes, trusted or not."""
    if format_name in CODE and not trust_code:
        raise TrustError(untrusted_message(model.path, format_name))
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


def untrusted_message(path: Path, format_name: str) -> str:
    """The message for an artifact that contains code and is not trusted."""
    return (
        f"{path} contains code: {CODE[format_name]}. It is not loaded without trust_code=True (--trust-code). Use an "
        "artifact without code (.onnx, .xml, .safetensors) instead. If you made the bundle or trust its author, give "
        "trust_code=True, preferably with trusted_key or trusted_digest."
    )


def standalone_code_message(path: Path, format_name: str) -> str:
    """The message for a lone artifact that contains code, which is never loaded."""
    return (
        f"{path} contains code: {CODE[format_name]}. A lone file of this kind is never loaded, because it cannot be "
        "verified. Give its bundle, with trust_code=True (--trust-code) if you trust its author; or an artifact "
        "without code (.onnx, .xml, .safetensors)."
    )
