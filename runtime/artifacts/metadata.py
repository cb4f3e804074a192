"""Metadata of an artifact: labels, input, temperature and digest, read from the file without loading an engine.

The export writes JSON under `METADATA_KEY` into every format that supports metadata:

    .onnx             ModelProto.metadata_props (onnx.proto, field 14)
    .xml              <net><rt_info><framework><stageproof value="…"/>, where OpenVINO stores ONNX's metadata
    .ts, .pt2         the entry ROOT/extra/stageproof of the zip archive
    .safetensors      __metadata__ of the header
    .aoti.pt2         a *_metadata.json beside the compiled library in the zip archive
    .engine           none

The JSON has the keys of `ModelInfo` and properties of this file. Reading skips the weights and takes microseconds to a
few milliseconds, independent of the file's size.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from stageproof.runtime.errors import BundleError
from stageproof.runtime.labels import LABELS_FROM
from stageproof.runtime.model_info import KEYS, OPTIONAL, ModelInfo
from stageproof.runtime.serialization.json_fields import exactly, field, parse, text

METADATA_KEY = "stageproof"
"""Key of the metadata in an artifact."""
METADATA_KEYS = (METADATA_KEY, "neurostage")
"""Accepted keys; artifacts of version 0.1 have the project's former name. A file with both has two descriptions."""

LARGEST = 1 << 20
"""Limit on the bytes of the metadata; the export writes about 600."""
_LARGEST_HEADER = 4 << 20
"""Limit on the bytes of a safetensors header or an archive's directory: ten times the largest network here. Parsed,
they can take fifty times as much memory."""
_PARTS = 100_000
"""Limit on the fields of an ONNX file that are read."""
_FITTING = 16
"""Limit on the entries of an archive with metadata."""

_FACTS = ("precision", "guarded", "labels_from", "takes", "gives")


@dataclass(frozen=True)
class ArtifactMetadata:
    """The metadata of one artifact."""

    model: ModelInfo
    precision: str | None
    """None in artifacts of version 0.1, which do not record it."""
    guarded: bool
    """Whether it was exported into a bundle with a guard; False if not recorded."""
    labels_from: str | None
    """Origin of the class order, one of `runtime.labels.LABELS_FROM`; None in artifacts of version 0.1."""
    takes: str | None
    """Input; None if not recorded, which means `runtime.artifacts.entries.TENSOR`."""
    gives: str
    """``logits`` or ``probabilities``."""


def read_metadata(path: Path, format_name: str, content: bytes | None = None) -> ArtifactMetadata | None:
    """The metadata of the artifact at `path`; None for a format without metadata.

    content: the file's bytes, if already read; the path is then not opened.

    Raises BundleError, naming the file, if the metadata is missing, ambiguous or invalid.
    """
    found = descriptions(path, format_name, content)
    if found is None:
        return None
    if len(found) != 1:
        how = "no metadata (labels, input size)" if not found else f"{len(found)} different metadata texts"
        raise BundleError(f"{path} has {how}, expected one. Not loaded. Export again.")
    return read_description(found[0], str(path))


def descriptions(path: Path, format_name: str, content: bytes | None = None) -> list[str] | None:
    """The distinct metadata texts in the file; None for a format without metadata. Raises BundleError, naming the
    file, if it cannot be read."""
    suffix, reader = FORMATS[format_name]
    if reader is None:
        return None
    if not path.name.endswith(suffix):
        raise BundleError(f"{path} is not a {format_name} file, whose name ends in {suffix}. Not loaded. Export again.")
    try:
        with path.open("rb") if content is None else io.BytesIO(content) as file:
            return sorted(set(reader(file)))
    except BundleError as error:  # from JSON inside the file, without the path
        raise BundleError(f"{path} cannot be read as {format_name}: {error}") from error
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path} cannot be read as {format_name}: {error}. Copy the bundle again.") from error
    except (zlib.error, SyntaxError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read as {format_name}: {error}. Copy the bundle again.") from error


def read_description(description: str, where: str) -> ArtifactMetadata:
    """The metadata parsed from `description`. Raises BundleError, naming `where`, for unknown, missing or invalid
    keys."""
    where = f"the metadata in {where}"
    data = parse(description, where)
    exactly(data, where, KEYS, (*OPTIONAL, *_FACTS))
    guarded = data.get("guarded", False)
    if not isinstance(guarded, bool):
        raise BundleError(f"{where}: 'guarded' is {guarded!r}, expected true or false. Export again.")
    return ArtifactMetadata(
        model=ModelInfo.from_exact({key: data[key] for key in (*KEYS, *OPTIONAL) if key in data}, where),
        precision=text(data, "precision", where) if "precision" in data else None,
        guarded=guarded,
        labels_from=labels_origin(data, where),
        takes=text(data, "takes", where) if "takes" in data else None,
        gives=text(data, "gives", where, "logits"),
    )


def labels_origin(data: Mapping[str, Any], where: str) -> str | None:
    """`labels_from` in an artifact's metadata or a manifest; None if it is not recorded. Raises BundleError for a value
    other than `runtime.labels.LABELS_FROM`."""
    if "labels_from" not in data:
        return None
    value: str = field(data, "labels_from", str, where)
    if value not in LABELS_FROM:
        raise BundleError(f"{where}: labels_from is {value!r}, expected one of {', '.join(LABELS_FROM)}. Export again.")
    return value


def _onnx(file: BinaryIO) -> list[str]:
    """The values of our keys in metadata_props of a serialised ModelProto; the graph is skipped."""
    found = []
    budget = [_PARTS]
    for number, length in _fields(file, budget):
        if number == 14 and length <= LARGEST:
            entry = io.BytesIO(file.read(length))
            pair = {
                name: entry.read(count) for name, count in _fields(entry, budget)
            }  # protobuf: the last of repeated fields wins
            if pair.get(1) in [key.encode() for key in METADATA_KEYS]:
                found.append(pair.get(2, b"").decode("utf-8"))
    return found


def _fields(file: BinaryIO, budget: list[int]) -> Iterator[tuple[int, int]]:
    """Number and length of each length-delimited field of a protobuf message, with `file` positioned at its content;
    others are skipped (protobuf.dev/programming-guides/encoding). budget: [fields that may still be read]."""
    size = file.seek(0, 2)
    file.seek(0)
    while file.tell() < size:
        budget[0] -= 1
        if budget[0] < 0:
            raise ValueError("it consists of more parts than any network of this project")
        number, kind = divmod(_varint(file), 8)
        if kind == 0:
            _varint(file)
            continue
        length = _varint(file) if kind == 2 else {1: 8, 5: 4}.get(kind, size)
        end = file.tell() + length
        if end > size:
            raise ValueError("it is cut off, or another kind of file")
        if kind == 2:
            yield number, length
        file.seek(end)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("it is cut off, or another kind of file")


def _openvino(file: BinaryIO) -> list[str]:
    """The values of our elements in the rt_info of the network; the rt_info of its layers is ignored."""
    from stageproof.runtime.artifacts import openvino_file  # imports an XML parser, which only this format needs

    network = openvino_file.parse(file.read(openvino_file.LARGEST + 1))
    if network.tag != "net":
        return []
    found = [element for key in METADATA_KEYS for element in network.findall(f"rt_info/framework/{key}")]
    return [element.get("value", "") for element in found]


def _archive(pattern: str) -> Callable[[BinaryIO], list[str]]:
    """A reader of the entries of a zip archive whose full name matches `pattern`."""

    def read(file: BinaryIO) -> list[str]:
        _assert_small_directory(file)
        with zipfile.ZipFile(file) as archive:
            fitting = [entry for entry in archive.infolist() if re.fullmatch(pattern, entry.filename)]
            if len(fitting) > _FITTING:
                raise ValueError(f"it has {len(fitting)} metadata entries, expected at most {_FITTING}")
            return [_entry(archive, entry) for entry in fitting]

    return read


def _assert_small_directory(file: BinaryIO) -> None:
    """Raise ValueError for a zip archive without a directory at its end, or with a large one, which `zipfile` would
    read at once."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 98))
    tail = file.read(98)
    if tail[-22:-18] != b"PK\x05\x06":
        raise ValueError("it does not end in the directory of an archive")
    length = int.from_bytes(tail[-10:-6], "little")
    if tail[:4] == b"PK\x06\x06":  # zip64 directory, as PyTorch writes it; `zipfile` reads this one
        length = max(length, int.from_bytes(tail[40:48], "little"))
    if length > _LARGEST_HEADER:
        raise ValueError(f"its directory has {length} bytes")


def _entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> str:
    with archive.open(entry) as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"{entry.filename} has more than {LARGEST} bytes")
    return content.decode("utf-8")


def _compiled(file: BinaryIO) -> list[str]:
    """The values of our keys in the metadata files of an AOTInductor package."""
    tables = [json.loads(table) for table in _archive(r".+/[^/]+_metadata\.json")(file)]
    return [str(table[key]) for table in tables if isinstance(table, dict) for key in METADATA_KEYS if key in table]


def _safetensors(file: BinaryIO) -> list[str]:
    """The values of our keys in the header's __metadata__."""
    length = int.from_bytes(file.read(8), "little")
    if length > _LARGEST_HEADER:
        raise ValueError(f"its header would have {length} bytes")
    header = parse(file.read(length).decode("utf-8"), "its header")
    metadata: dict[str, Any] = field(header, "__metadata__", dict, "its header", {})
    return [str(metadata[key]) for key in METADATA_KEYS if key in metadata]


Reader = Callable[[BinaryIO], list[str]]

_EXTRA = rf"[^/]+/extra/({'|'.join(METADATA_KEYS)})"

FORMATS: dict[str, tuple[str, Reader | None]] = {
    "onnx": (".onnx", _onnx),
    "openvino": (".xml", _openvino),
    "torchscript": (".ts", _archive(_EXTRA)),
    "torch-export": (".pt2", _archive(_EXTRA)),
    "pytorch": (".safetensors", _safetensors),
    "aotinductor": (".aoti.pt2", _compiled),
    "tensorrt": (".engine", None),
}
"""Format → file suffix and metadata reader; None: the format has no metadata."""
