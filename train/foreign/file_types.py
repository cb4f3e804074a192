"""Identifies files that are not weights by their first bytes, for error messages that say what to do."""

from __future__ import annotations

import zipfile
from pathlib import Path

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.system.regular_files import open_regular
from stageproof.runtime.text.hints import command, program

_HEAD = 1024
_EXPANSION = 4
"""Maximum expansion factor of an archive of weights: compression reduces float32 weights by a tenth only."""
_TEXT = bytes({7, 8, 9, 10, 12, 13, 27} | set(range(0x20, 0x100)))

_PYTORCH_ONLY = (
    f"Only PyTorch weights are read: give the network's PyTorch checkpoint, or train one with: {program('train')}"
)
_IMAGES = f"Give the checkpoint; images follow the bundle in: {program('runtime')}"
_LEADS: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer, not the file itself",
        "Download the file with: git lfs pull",
    ),
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file, as Keras and TensorFlow write weights",
        _PYTORCH_ONLY,
    ),
    (b"PAR1", "a parquet file: data, not weights", "Give it as data: --data or --parity-data"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image, not weights", _IMAGES),
    (b"\xff\xd8\xff", "a JPEG image, not weights", _IMAGES),
    (b"\x93NUMPY", "a NumPy array", "Save the weights from PyTorch: torch.save(model.state_dict(), path)"),
    (b"GGUF", "a GGUF file, a format for language models", "Give the network's PyTorch checkpoint"),
    (b"\x1f\x8b", "a gzip archive", "Unpack it, and give the weights inside"),
    (b"BZh", "a bzip2 archive", "Unpack it, and give the weights inside"),
    (b"\xfd7zXZ\0", "an xz archive", "Unpack it, and give the weights inside"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it, and give the weights inside"),
    (b"Rar!\x1a\x07", "a RAR archive", "Unpack it, and give the weights inside"),
    (b"%PDF-", "a PDF document", "Give the checkpoint"),
)
"""(first bytes, type of the file, what to do)."""

_SAVE = "torch.save(model.state_dict(), 'weights.pth')"
_ONNX = (
    "an ONNX graph, not a checkpoint",
    f"Give the PyTorch checkpoint that it was exported from, or export the graph itself with {program('export')}. A "
    f"file written by it can be used as is: {command('runtime', '--bundle', 'FILE.onnx', 'scan.jpg')}",
)
_TORCHSCRIPT = (
    "a TorchScript program: it contains code in addition to weights",
    f"If you trust it, export it with {program('export')} --trust-code, or save its weights: "
    "torch.save(torch.jit.load(PATH).state_dict(), 'weights.pth')",
)
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of a file of torch.save before version 1.6: its magic number, pickled."""
_PICKLE = (
    "a pickle that torch.save did not write, and a pickle can run code",
    f"It was not loaded. Load it where it was made, and save the weights with {_SAVE}",
)
_WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".onnx", ".ts", ".tar")
_BY_NAME = {
    ".pb": "a TensorFlow graph",
    ".engine": "a TensorRT engine, built for one GPU",
    ".plan": "a TensorRT engine, built for one GPU",
    ".mlmodel": "a Core ML model",
    ".caffemodel": "a Caffe model",
}
"""Suffix → type, for formats without distinctive first bytes."""
_PAGE = (
    "a web page, not weights: the download returned a log-in or error page",
    "Download the file again and check its size",
)


def is_onnx(path: Path) -> bool:
    """Whether the file begins as an ONNX graph does, or has the suffix .onnx and no other known beginning."""
    return path.is_file() and _file_type(path) == _ONNX


def is_torchscript(path: Path) -> bool:
    """Whether the file is an archive of torch.jit.save."""
    return path.is_file() and _file_type(path) == _TORCHSCRIPT


def refuse_folder(path: Path) -> None:
    """Raise CheckpointError if the folder is a model of another program, or contains weight files."""
    if (path / "saved_model.pb").is_file() or (path / "saved_model.pbtxt").is_file():
        raise CheckpointError(
            f"{path} is a TensorFlow SavedModel. {_PYTORCH_ONLY}, or convert it to ONNX with tf2onnx and export that."
        )
    if (path / ".metadata").is_file() and any(path.glob("*.distcp")):
        merge = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch"
        raise CheckpointError(
            f"{path} is a distributed checkpoint of PyTorch. Merge it into one file: {merge} {path} weights.pth"
        )
    if path.suffix == ".mlpackage" or (path / "Manifest.json").is_file():
        raise CheckpointError(f"{path} is a Core ML model. {_PYTORCH_ONLY}.")
    if weights := sorted(one.name for one in path.iterdir() if one.suffix.lower() in _WEIGHTS and one.is_file()):
        raise CheckpointError(
            f"{path} is a folder and not a run: it contains no run.json. It has the weight files "
            f"{', '.join(weights[:4])}. Give one of them, such as {path / weights[0]}"
        )


def is_safetensors(path: Path) -> bool:
    """Whether the file has the layout of safetensors: the length of the header in 8 bytes, then a JSON object."""
    with open_regular(path) as file:
        head = file.read(9)
    length = int.from_bytes(head[:8], "little")
    return len(head) == 9 and head[8:] == b"{" and 2 <= length <= path.stat().st_size - 8


def is_pickled(path: Path) -> bool:
    """Whether the file begins like one of torch.save: as a zip archive or, before version 1.6, as a pickle."""
    with open_regular(path) as file:
        return file.read(1) == b"\x80" or zipfile.is_zipfile(path)


def refuse_stranger(path: Path) -> None:
    """Raise CheckpointError, with the type of the file and what to do, unless it may contain weights.

    Raises OSError if it cannot be read.
    """
    if found := _file_type(path):
        raise CheckpointError(f"{path} is {found[0]}. {found[1].replace('PATH', repr(str(path)))}.")


def _file_type(path: Path) -> tuple[str, str] | None:
    """The type of the file and what to do; None if it may contain weights."""
    with open_regular(path) as file:
        head = file.read(_HEAD)
    if not head:
        return "empty: it has 0 bytes", "Copy or download it again"
    for lead, what, step in _LEADS:
        if head.startswith(lead):
            return what, step
    if head.startswith(b"PK"):
        return _archive(path)
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model", "Give the network's PyTorch checkpoint"
    if head[257:262] == b"ustar":
        return "a tar archive", "Unpack it, and give the weights inside"
    if head[128:132] == b"DICM":
        return "a DICOM image, not weights", _IMAGES
    if head[4:8] in (b"ET12", b"ET13"):
        return "an ExecuTorch program", "Give the PyTorch checkpoint that it was made from"
    if is_safetensors(path) or head.startswith(_LEGACY):
        return None
    if head.startswith(b"\x80") and head[1:2] <= b"\x05":
        return None if len(head) < len(_LEGACY) else _PICKLE  # torch reports a truncated file
    if path.suffix.lower() in _BY_NAME:
        return _BY_NAME[path.suffix.lower()], "Give the network's PyTorch checkpoint"
    return _text(head) or (_ONNX if _looks_onnx(path, head) else None)


def _text(head: bytes) -> tuple[str, str] | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")) or (text.startswith(b"<?xml") and b"<error" in text):
        return _PAGE
    if text.startswith((b"<?xml", b"<net ")) and b"<net " in text:
        return "an OpenVINO model, built for that engine", "Give the PyTorch checkpoint that it was made from"
    if head.translate(None, _TEXT):
        return None
    if b'"weight_map"' in head:
        return "the index of a checkpoint in several files", "Merge the files into one state dict, and give that"
    start = head.decode("utf-8", "replace").strip().splitlines()
    return f"text, not weights; it begins {(start[0] if start else '')[:40]!r}", "Give the checkpoint"


def _looks_onnx(path: Path, head: bytes) -> bool:
    """Whether the suffix is .onnx, or the file is a protobuf with a small `ir_version` and another ModelProto field."""
    return path.suffix.lower() == ".onnx" or (
        len(head) > 3 and head[0] == 0x08 and 3 <= head[1] <= 30 and head[2] in (0x12, 0x1A, 0x22, 0x28, 0x3A, 0x42)
    )


def _archive(path: Path) -> tuple[str, str] | None:
    """The type of a zip archive by its content, and what to do; None if torch.save may have written it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            expanded = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError):
        return None  # truncated: torch reports that
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return _TORCHSCRIPT
    if "archive_format" in inner or "models/model.json" in inner or "serialized_exported_program.json" in names:
        return (
            "a program that torch.export saved",
            "Save its weights: torch.save(torch.export.load(PATH).state_dict, 'weights.pth')",
        )
    if "data.pkl" in inner and expanded > _EXPANSION * path.stat().st_size:
        return (
            f"an archive of {path.stat().st_size} bytes that would take {expanded} bytes of memory: torch.save does "
            "not compress, and weights cannot be compressed that much",
            "If you trust it, unpack it and save its weights again with torch.save",
        )
    if "data.pkl" in inner:
        return None
    if "model.weights.h5" in names:
        return "a Keras model", _PYTORCH_ONLY
    if any("aotinductor/" in name for name in names):
        return "machine code that AOTInductor compiled", "Give the PyTorch checkpoint that it was made from"
    if "MAR-INF/MANIFEST.json" in names:
        return "a TorchServe archive", "Unpack it, and give the weights inside"
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz)", "Save the weights from PyTorch: torch.save(model.state_dict(), path)"
    files = [name for name in names if not name.endswith("/")]
    some = ", ".join(files[:3]) or "nothing"
    return f"a zip archive with {len(files)} files inside ({some})", "Unpack it, and give the weights inside"
