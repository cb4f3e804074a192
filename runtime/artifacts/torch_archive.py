"""What a `.pt2` or `.ts` holds, looked at before PyTorch does: entries, pickles, machine code.

PyTorch loads a shared object that it finds in such an archive, unpickles objects of any class where it is told to, and
where unpickling tensors alone fails it tries again without that limit. So only archives are passed on that consist of
the entries which `torch.export.save` and `torch.jit.save` write for a network, and whose pickles name nothing but
tensors. That does not make them data: what remains is a program.

The archive is read here by `zipfile` and there by another reader. So that both see the same entries, it has to be
plain: one directory at its end, entries side by side from its first byte on, every name once.
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
"""Bytes of all compressed entries together, once they are not; ours are source code and have some kB."""
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
"""Kind of archive → names of its entries below their one folder."""
_MACHINE_CODE = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"!<arch>\n")
_LIBRARY = re.compile(r"\.(so|dll|dylib|o|a|pyd|cubin|ptx)(\.\d+)*$")

_GLOBALS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(?:tensor_v2|parameter)|torch (?:\w+Storage|Size)|torch\.storage "
    r"(?:UntypedStorage|TypedStorage)|torch (?:float32|float16|bfloat16|int64|uint8|int8|int32|bool)"
)
_SCRIPTED = re.compile(
    r"__torch__(?:\.\w+)* \w+|torch\.jit\._pickle (?:build_intlist|build_doublelist|build_boollist|restore_type_tag)"
)
"""Classes that the archive's own code defines, which PyTorch's own reader makes, and not Python."""
_OPCODES = frozenset(
    re.findall(
        r"\w+",
        """PROTO FRAME STOP MARK GLOBAL REDUCE BUILD NEWOBJ NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT
        BINUNICODE SHORT_BINUNICODE EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM
        SETITEMS BINPUT LONG_BINPUT BINGET LONG_BINGET MEMOIZE BINPERSID""",
    )
)
_REACHES_OUT = re.compile(
    r"\b(?:from_file|torch\.save|torch\.load|ops\.(?!prim\b|aten\b)\w+|__torch__\.torch\.classes)\b"
)
"""In TorchScript's source: operators that open files, operators and classes of libraries."""


def examine(content: bytes, kind: str) -> None:
    """Raise ValueError, saying what was found, for an archive that holds anything but a network as PyTorch writes it.

    kind: ``torch-export``, ``torchscript``, or ``tensors`` for what `torch.save` writes.
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
    """The archive, whose entries lie side by side from the first byte to the one directory at the end (APPNOTE.TXT
    4.3). Raises ValueError for any other."""
    count, start = _directory(content)
    archive = zipfile.ZipFile(io.BytesIO(content))
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    names = {entry.filename.casefold() for entry in entries}
    if not entries or len(entries) != count or len(entries) > _ENTRIES or len(names) != len(entries):
        raise ValueError("its directory names an entry twice, none, or more than it says")
    position = 0
    for entry in entries:
        path = PurePosixPath(entry.filename)
        if str(path) != entry.filename or path.is_absolute() or ".." in path.parts or "\\" in entry.filename:
            raise ValueError(f"it holds {entry.filename[:200]!r}, which is no plain path")
        position = _end_of(content, entry, position)
    if position != start:
        raise ValueError("it holds bytes that its directory does not name")
    return archive


def _directory(content: bytes) -> tuple[int, int]:
    """Number of entries, and where their directory begins: it ends where the archive does."""
    end = content[-22:]
    if len(end) < 22 or end[:4] != b"PK\x05\x06" or end[20:] != b"\0\0":
        raise ValueError("it is no archive as PyTorch writes it: it does not end in its directory")
    count, size, start = struct.unpack("<4x6xHII2x", end)
    after = content[start + size : -22]
    if after:  # PyTorch writes the directory's place once more in 64 bits: APPNOTE.TXT 4.3.14, 4.3.15
        wide = (b"PK\x06\x06", 44, 0, 0, count, count, size, start, b"PK\x06\x07", 0, start + size, 1)
        if len(after) != 76 or struct.unpack("<4sQ4xIIQQQQ4sIQI", after) != wide:
            raise ValueError("it is no archive as PyTorch writes it: its directory is not at its end")
    return count, start


def _end_of(content: bytes, entry: zipfile.ZipInfo, position: int) -> int:
    """Where the entry ends that begins at `position`; its own header has to say what the directory says."""
    header = content[position : position + 30]
    if entry.header_offset != position or len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise ValueError(f"its entry {entry.filename[:200]!r} is not where it should be")
    flags, method, name_length, extra_length = struct.unpack("<6xHH16xHH", header)
    name = content[position + 30 : position + 30 + name_length]
    known = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if name != entry.orig_filename.encode() or method != entry.compress_type or method not in known or flags & ~0x0808:
        raise ValueError(f"its entry {entry.filename[:200]!r} contradicts its directory, or is encrypted")
    if method == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
        raise ValueError(f"its entry {entry.filename[:200]!r} contradicts itself")
    position += 30 + name_length + extra_length + entry.compress_size
    if flags & 8:  # sizes once more behind the data, with a signature or without
        wide = content[position : position + 4] == b"PK\x07\x08"
        position += 16 if wide else 12
        if content[position : position + 4] not in (b"PK\x03\x04", b"PK\x01\x02"):
            position += 8  # sizes of 64 bits
    return position


def _assert_tensors(raw: bytes, name: str, *, scripted: bool) -> None:
    """Raise ValueError for a pickle that names anything but tensors, or whose opcodes are not those of tensors."""
    for opcode, given, _ in pickletools.genops(raw):
        argument: Any = given
        if opcode.name not in _OPCODES:
            raise ValueError(f"its pickle {name[:200]!r} has the opcode {opcode.name}, which no tensor needs")
        if opcode.name in ("LONG_BINPUT", "LONG_BINGET") and argument > len(raw):
            raise ValueError(f"its pickle {name[:200]!r} has a memo of {argument} places")
        known = _GLOBALS.fullmatch(argument) if opcode.name == "GLOBAL" else True
        if not known and not (scripted and _SCRIPTED.fullmatch(argument)):
            raise ValueError(f"its pickle {name[:200]!r} names {argument[:200]!r}, which is no tensor")


def _assert_no_objects(raw: bytes, name: str) -> None:
    """Raise ValueError for a table of weights that has any of them unpickled."""
    table = json.loads(raw)
    if not isinstance(table, dict) or set(table) != {"config"} or not isinstance(table["config"], dict):
        raise ValueError(f"its table {name[:200]!r} is not one of weights")
    for weight, entry in table["config"].items():
        path = entry.get("path_name") if isinstance(entry, dict) else None
        if entry is None or not isinstance(path, str) or entry.get("use_pickle") is not False:
            raise ValueError(f"its weight {weight[:80]!r} would be unpickled")
        if not re.fullmatch(r"(?:weight|tensor)_\d+", path):
            raise ValueError(f"its weight {weight[:80]!r} is {path[:80]!r}, which is no tensor")


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes:
    with archive.open(entry) as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        raise ValueError(f"its entry {entry.filename[:200]!r} has more than {most} bytes")
    return raw


def _is_weight(name: str) -> bool:
    """Whether an entry holds nothing but numbers, which may begin as anything does."""
    return re.fullmatch(r"(?:data|constants)/\d+|data/weights/weight_\d+|data/constants/tensor_\d+", name) is not None


def _pickle_or_code(name: str) -> str:
    """The end of a name that stands for a pickle, a library or source code; "" for any other."""
    found = re.search(r"\.(pkl|pickle|debug_pkl|pt|pth|so|dll|dylib|o|a|py|cpp)$", name)
    return f"*{found.group()}" if found else ""
