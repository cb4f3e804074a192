"""Inspection of `.pt2` and `.ts` archives before PyTorch loads them: entries, pickles, machine code.

PyTorch loads shared objects that it finds in such an archive, unpickles arbitrary classes if the archive requests it,
and retries without ``weights_only`` if restricted unpickling fails. Therefore only archives are accepted that have the
entries which `torch.export.save` and `torch.jit.save` write for a network, and pickles of tensors only. The accepted
files are still programs.

Python's `zipfile` reads the archive here, PyTorch's own reader later. To ensure that both see the same entries, the
archive must be canonical: one directory at its end, contiguous entries from the first byte, unique names.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import struct
import zipfile
from pathlib import PurePosixPath
from typing import Any

_LARGEST_TEXT = 64 << 20
"""Limit on the uncompressed size of all compressed entries; the exported ones are source code of a few kB."""
_LARGEST_PICKLE = 16 << 20
_ENTRIES = 20_000

_COMMON = r"version|byteorder|\.data/version|\.data/serialization_id|extra/[A-Za-z0-9_.-]+"
_NAMES = {
    "torch-export": re.compile(
        rf"(?:{_COMMON}|archive_format|archive_version|models/model\.json|data/sample_inputs/model\.pt"
        r"|data/weights/(?:weight_\d+|model_weights_config\.json)"
        r"|data/constants/(?:tensor_\d+|model_constants_config\.json))"
    ),
    "torchscript": re.compile(
        rf"(?:{_COMMON}|data\.pkl|constants\.pkl|data/\d+|constants/\d+|code/__torch__[\w/]*\.py(?:\.debug_pkl)?)"
    ),
    "tensors": re.compile(rf"(?:{_COMMON}|data\.pkl|data/\d+|\.format_version|\.storage_alignment)"),
}
"""Kind of archive → allowed names of entries in its root folder."""
_MACHINE_CODE = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"!<arch>\n")
_LIBRARY = re.compile(r"\.(so|dll|dylib|o|a|pyd|cubin|ptx)(\.\d+)*$")

_GLOBALS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(?:tensor_v2|parameter)|torch (?:\w+Storage|Size)|torch\.storage "
    r"(?:UntypedStorage|TypedStorage)|torch (?:float32|float16|bfloat16|int64|uint8|int8|int32|bool)"
)
_SCRIPTED = re.compile(
    r"__torch__(?:\.\w+)* \w+|torch\.jit\._pickle (?:build_intlist|build_doublelist|build_boollist|restore_type_tag)"
)
"""Classes defined by the archive's TorchScript code; PyTorch's C++ unpickler creates them, not Python's."""
_OPCODES = frozenset(
    """PROTO FRAME STOP MARK GLOBAL REDUCE BUILD NEWOBJ NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT
    BINUNICODE SHORT_BINUNICODE EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM
    SETITEMS BINPUT LONG_BINPUT BINGET LONG_BINGET MEMOIZE BINPERSID""".split()
)
_REACHES_OUT = re.compile(
    r"\b(?:from_file|torch\.save|torch\.load|ops\.(?!prim\b|aten\b)\w+|__torch__\.torch\.classes)\b"
)
"""Forbidden in TorchScript source: operators that open files, and operators and classes of other libraries."""


def examine(content: bytes, kind: str) -> None:
    """Raise ValueError, naming the finding, for an archive with other content than a network as PyTorch writes it.

    kind: ``torch-export``, ``torchscript``, or ``tensors`` for files of `torch.save`.
    """
    archive = _plain(content)
    entries, root = archive.infolist(), ""
    found = [_pickle_or_code(entry.filename) for entry in entries]
    shown = ", ".join(dict.fromkeys(name for name in found if name))
    expanded = 0
    for entry in entries:
        root = root or entry.filename.partition("/")[0]
        name = entry.filename.removeprefix(f"{root}/")
        with archive.open(entry) as file:
            head = file.read(16)
        if _LIBRARY.search(name) or (head.startswith(_MACHINE_CODE) and not _is_weight(name)):
            raise ValueError(f"it holds machine code: {entry.filename[:200]!r}")
        if name == entry.filename or not _NAMES[kind].fullmatch(name):
            raise ValueError(
                f"it holds {entry.filename[:200]!r}, which no export of this project writes "
                f"(it holds {shown or 'no pickle'})"
            )
        expanded += entry.file_size if entry.compress_type != zipfile.ZIP_STORED else 0
        if expanded > _LARGEST_TEXT:
            raise ValueError(f"its compressed entries have more than {_LARGEST_TEXT} bytes")
        _examine_entry(archive, entry, name, kind)


def _examine_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, kind: str) -> None:
    if name.endswith(".pkl"):
        _assert_tensors(_read(archive, entry, _LARGEST_PICKLE), entry.filename, scripted=kind == "torchscript")
    elif name == "data/sample_inputs/model.pt":
        examine(_read(archive, entry, _LARGEST_TEXT), "tensors")
    elif name.endswith("_config.json"):
        _assert_no_objects(_read(archive, entry, _LARGEST_PICKLE), entry.filename)
    elif kind == "torchscript" and name.endswith(".py"):
        source = _read(archive, entry, _LARGEST_PICKLE).decode("utf-8")
        if outside := _REACHES_OUT.search(source):
            raise ValueError(f"its code, {entry.filename[:200]!r}, calls {outside.group()!r}")


def _plain(content: bytes) -> zipfile.ZipFile:
    """The archive. Raises ValueError unless its entries are contiguous from the first byte to the directory at the end
    (APPNOTE.TXT 4.3)."""
    count, start = _directory(content)
    archive = zipfile.ZipFile(io.BytesIO(content))
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    names = {entry.filename.casefold() for entry in entries}
    if not entries or len(entries) != count or len(entries) > _ENTRIES or len(names) != len(entries):
        raise ValueError("its directory lists an entry twice, no entry, or another number than it declares")
    position = 0
    for entry in entries:
        path = PurePosixPath(entry.filename)
        if str(path) != entry.filename or path.is_absolute() or ".." in path.parts or "\\" in entry.filename:
            raise ValueError(f"it holds {entry.filename[:200]!r}, which is not a canonical path")
        position = _end_of(content, entry, position)
    if position != start:
        raise ValueError("it has bytes that do not belong to an entry of its directory")
    return archive


def _directory(content: bytes) -> tuple[int, int]:
    """Number of entries, and offset of their directory, which must end at the end of the archive."""
    end = content[-22:]
    if len(end) < 22 or end[:4] != b"PK\x05\x06" or end[20:] != b"\0\0":
        raise ValueError("it is not an archive as PyTorch writes it: it does not end in its directory")
    count, size, start = struct.unpack("<4x6xHII2x", end)
    after = content[start + size : -22]
    if after:  # PyTorch also writes a zip64 end of directory: APPNOTE.TXT 4.3.14, 4.3.15
        wide = (b"PK\x06\x06", 44, 0, 0, count, count, size, start, b"PK\x06\x07", 0, start + size, 1)
        if len(after) != 76 or struct.unpack("<4sQ4xIIQQQQ4sIQI", after) != wide:
            raise ValueError("it is not an archive as PyTorch writes it: its directory is not at its end")
    return count, start


def _end_of(content: bytes, entry: zipfile.ZipInfo, position: int) -> int:
    """End offset of the entry at `position`. Raises ValueError if its local header contradicts the directory."""
    header = content[position : position + 30]
    if entry.header_offset != position or len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise ValueError(f"its entry {entry.filename[:200]!r} is not at the expected offset")
    flags, method, name_length, extra_length = struct.unpack("<6xHH16xHH", header)
    name = content[position + 30 : position + 30 + name_length]
    known = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if name != entry.orig_filename.encode() or method != entry.compress_type or method not in known or flags & ~0x0808:
        raise ValueError(f"its entry {entry.filename[:200]!r} contradicts its directory, or is encrypted")
    if method == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
        raise ValueError(f"its stored entry {entry.filename[:200]!r} has two different sizes")
    position += 30 + name_length + extra_length + entry.compress_size
    if flags & 8:  # a data descriptor follows the data, with or without signature
        wide = content[position : position + 4] == b"PK\x07\x08"
        position += 16 if wide else 12
        if content[position : position + 4] not in (b"PK\x03\x04", b"PK\x01\x02"):
            position += 8  # zip64 sizes
    return position


def _assert_tensors(raw: bytes, name: str, *, scripted: bool) -> None:
    """Raise ValueError for a pickle with other globals or opcodes than those of tensors."""
    for opcode, given, _ in pickletools.genops(raw):
        argument: Any = given
        if opcode.name not in _OPCODES:
            raise ValueError(f"its pickle {name[:200]!r} has the opcode {opcode.name}, which tensors do not need")
        if opcode.name in ("LONG_BINPUT", "LONG_BINGET") and argument > len(raw):
            raise ValueError(f"its pickle {name[:200]!r} has the memo index {argument}, beyond its size")
        known = _GLOBALS.fullmatch(argument) if opcode.name == "GLOBAL" else True
        if not known and not (scripted and _SCRIPTED.fullmatch(argument)):
            raise ValueError(f"its pickle {name[:200]!r} names {argument[:200]!r}, which is not a tensor class")


def _assert_no_objects(raw: bytes, name: str) -> None:
    """Raise ValueError for a weight table in which a weight would be unpickled."""
    table = json.loads(raw)
    if not isinstance(table, dict) or set(table) != {"config"} or not isinstance(table["config"], dict):
        raise ValueError(f"its table {name[:200]!r} is not a weight table")
    for weight, entry in table["config"].items():
        path = entry.get("path_name") if isinstance(entry, dict) else None
        if entry is None or not isinstance(path, str) or entry.get("use_pickle") is not False:
            raise ValueError(f"its weight {weight[:80]!r} would be unpickled")
        if not re.fullmatch(r"(?:weight|tensor)_\d+", path):
            raise ValueError(f"its weight {weight[:80]!r} is stored in {path[:80]!r}, expected a tensor file")


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes:
    with archive.open(entry) as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        raise ValueError(f"its entry {entry.filename[:200]!r} has more than {most} bytes")
    return raw


def _is_weight(name: str) -> bool:
    """Whether an entry is raw tensor data, whose first bytes may look like machine code."""
    return re.fullmatch(r"(?:data|constants)/\d+|data/weights/weight_\d+|data/constants/tensor_\d+", name) is not None


def _pickle_or_code(name: str) -> str:
    """``*`` and the suffix, if it is that of a pickle, library or source file; otherwise ""."""
    found = re.search(r"\.(pkl|pickle|debug_pkl|pt|pth|so|dll|dylib|o|a|py|cpp)$", name)
    return f"*{found.group()}" if found else ""
