"""AOTInductor: the torch.export program compiled to machine code for this machine's CPU, as one `.pt2` package.

For C++ programs that use libtorch. Loading a package runs its machine code, so Predictor never loads one.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stageproof.export.engines.aotinductor import NAME as ENGINE
from stageproof.export.engines.aotinductor import TAKES
from stageproof.export.formats import torch_export
from stageproof.export.formats.built import Built, Found
from stageproof.runtime.bundle.manifest import METADATA_KEY
from stageproof.runtime.errors import BackendUnavailable, ExportError
from stageproof.runtime.serialization.digests import sha256_file

if TYPE_CHECKING:
    from stageproof.export.reference.context import Job

NAME = ENGINE
PRECISIONS = torch_export.PRECISIONS
SUFFIX = ".aoti.pt2"
REQUIRES = torch_export.REQUIRES
NEEDS_GPU = False
PIXELS = False

_FOLDERS = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
"""Environment variables for PyTorch's compilation caches."""
COMPILERS = ("g++", "clang++")
_CONSTANT = re.compile(r"\.dtype = \w*?dtype_(\w+)\b.*?\.shape = \{([^}]*)\}", re.DOTALL)


def build(job: Job, precision: str, path: Path) -> Built:
    """The result of writing the reference as one compiled package, which takes one to two minutes.

    Raises BackendUnavailable without a C++ compiler, ExportError if torch fails to export or compile.
    """
    import torch
    import torch._inductor  # its subpackages are not imported with torch

    compiler = os.environ.get("CXX") or next(filter(shutil.which, COMPILERS), "")
    if not shutil.which(compiler):
        raise BackendUnavailable(
            f"AOTInductor compiles C++, and {compiler or ' or '.join(COMPILERS)} was not found. Install a compiler, or "
            "name it in the environment variable CXX."
        )
    program = torch_export.exported(job, precision)
    settings = {
        "aot_inductor.metadata": {METADATA_KEY: json.dumps({**job.description(precision), "takes": TAKES})},
        "freezing": True,  # folds BatchNorm and lays out weights for this CPU: 78 ms instead of 122
    }
    try:
        with _private_folder(), torch.no_grad():
            torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=settings)
    except Exception as error:  # the compiler raises exceptions of any type
        raise ExportError(f"AOTInductor failed on {job.reference.info.architecture}: {str(error)[-600:]}") from error
    return Built({path.name: sha256_file(path)}, {"machine": f"{platform.machine()}, {_isa()}"}, takes=TAKES)


@contextmanager
def _private_folder() -> Iterator[None]:
    """Make PyTorch compile in a new folder that only this user can open; it is deleted afterwards.

    PyTorch's default is torchinductor_USER in the folder for temporary files, which another user could have created,
    and it compiles the files that it finds there.
    """
    before = {name: os.environ.get(name) for name in _FOLDERS}
    with tempfile.TemporaryDirectory(prefix="stageproof-inductor-") as folder:
        os.environ.update(dict.fromkeys(_FOLDERS, folder))
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def _isa() -> str:
    """The vector instruction set that PyTorch compiles for."""
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    return str(pick_vec_isa())


def inspect(path: Path) -> Found:
    """The type of each weight, from the table of constants in the C++ source that the package contains.

    Raises ExportError for a package without that table.
    """
    from stageproof.export.graphs.half_precision import DTYPES

    with zipfile.ZipFile(path) as package:
        sources = [package.read(name).decode() for name in package.namelist() if name.endswith(".wrapper.cpp")]
    found = [(dtype, shape) for source in sources for dtype, shape in _CONSTANT.findall(source)]
    if not found:
        raise ExportError(f"{path.name} has no table of constants, so its precision cannot be read. Not added.")
    names = {str(dtype).removeprefix("torch."): name for name, dtype in DTYPES.items()}
    return Found.count([names.get(dtype, "other") for dtype, shape in found if shape.count(",")])
