"""Safe reading of untrusted `.npz` files: sizes are checked before decompression.

An `.npz` is a zip archive of `.npy` files (NumPy Enhancement Proposal 1). `numpy.load` trusts the sizes that they
declare: three megabytes of compressed zeros expand to three gigabytes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from math import prod

import numpy as np

_HEADER = 1024
"""Limit on the bytes of a `.npy` header; ours have 128."""


def arrays_of(content: bytes, expected: Mapping[str, tuple[str, int]]) -> dict[str, np.ndarray]:
    """The arrays in an `.npz` file, by name.

    expected: name → kind (``f``: float32, ``U``: one text) and the maximum number of bytes of its values.

    Raises ValueError for other or duplicate names, another dtype (including Python objects, which are pickles), more
    bytes than expected, and inconsistent sizes; zipfile.BadZipFile, zlib.error and EOFError for an invalid archive.
    Decompresses at most the expected number of bytes.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        names = sorted(entry.filename for entry in entries)
        if names != sorted(f"{name}.npy" for name in expected):
            raise ValueError(f"it holds {', '.join(map(repr, names[:8]))}, expected {', '.join(expected)}")
        found = {}
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            kind, most = expected[name]
            with archive.open(entry) as file:
                raw = file.read(_HEADER + most + 1)
            if max(len(raw), entry.file_size) > _HEADER + most:
                raise ValueError(f"{name} has more than {_HEADER + most} bytes")
            found[name] = _array(raw, name, kind)
        return found


def _array(raw: bytes, name: str, kind: str) -> np.ndarray:
    stream = io.BytesIO(raw)
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} has the version {version} of .npy, expected 1.0")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream, max_header_size=_HEADER)
    fitting = dtype == np.dtype("<f4") if kind == "f" else dtype.kind == "U" and shape == ()
    if dtype.hasobject or not fitting:
        raise ValueError(f"{name} is {dtype} of shape {shape}, expected {'float32' if kind == 'f' else 'one text'}")
    values = raw[stream.tell() :]
    if prod(shape) * dtype.itemsize != len(values):
        raise ValueError(f"{name} declares {prod(shape)} values and has {len(values)} bytes of them")
    return np.frombuffer(values, dtype).reshape(shape, order="F" if fortran else "C")
