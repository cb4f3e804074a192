"""The formats, one module each. `FORMATS` is the one table that the command line and the errors are made from.

A format module has

    NAME          what users call it
    PRECISIONS    what it can be built in
    SUFFIX        of the artifact's file
    REQUIRES      {importable module: extra of stageproof that installs it}, to build
    NEEDS_GPU     whether running the artifact takes a GPU, so that a machine without one cannot check it
    PIXELS        whether it can also hold the preprocessing: build(..., pixels=True)
    build(...)    job, precision and path → Built, the files are written
    inspect(...)  path → Found, the precision that the file has
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from types import ModuleType

from stageproof.export.formats import aotinductor, onnx, openvino, pytorch, tensorrt, torch_export, torchscript
from stageproof.runtime.errors import InputError

FORMATS: dict[str, ModuleType] = {
    module.NAME: module for module in (onnx, openvino, torchscript, torch_export, pytorch, aotinductor, tensorrt)
}
"""In the order they are built: later ones reuse the ONNX graphs of the first."""

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")


def format_module(name: str) -> ModuleType:
    """The format called `name`. Raises InputError with a suggestion; a mistyped name is never corrected silently."""
    _known(name, FORMATS, "format")
    return FORMATS[name]


def combinations(to: Sequence[str], precision: Sequence[str]) -> dict[str, list[str]]:
    """Format → its precisions among those asked for, in the order of the tables; ``all`` stands for every one.

    Raises InputError for a name that does not exist, and for a format that has none of the precisions asked for.
    """
    for name in to:
        _known(name, [*FORMATS, "all"], "format")
    for name in precision:
        _known(name, [*PRECISIONS, "all"], "precision")
    wanted: dict[str, list[str]] = {}
    for name, module in FORMATS.items():
        if name not in to and "all" not in to:
            continue
        has = [p for p in PRECISIONS if p in module.PRECISIONS and (p in precision or "all" in precision)]
        if not has and name in to:
            raise InputError(
                f"{name} has no {' or '.join(precision)}; it can be built in {', '.join(module.PRECISIONS)}."
            )
        if has:
            wanted[name] = has
    return wanted


def variants(name: str, precisions: Sequence[str], pixels: bool) -> list[tuple[str, bool]]:
    """What is built of one format: each precision, and, where `pixels` is asked for and possible, once more so."""
    both = (False, True) if pixels and FORMATS[name].PIXELS else (False,)
    return [(precision, with_pixels) for precision in precisions for with_pixels in both]


def assert_pixels(wanted: Sequence[str], preprocessing: bool, softmax: bool) -> None:
    """Raise InputError where --with-preprocessing or --with-softmax could not change anything."""
    if softmax and not preprocessing:
        raise InputError("--with-softmax is for artifacts that take pixels. Add --with-preprocessing.")
    can = [name for name, module in FORMATS.items() if module.PIXELS]
    if preprocessing and not set(can) & set(wanted):
        raise InputError(f"--with-preprocessing is for {', '.join(can)}, not for {', '.join(wanted)}.")


def file_name(module: ModuleType, precision: str, pixels: bool = False) -> str:
    """The artifact's name in the bundle: model.onnx, model.int8.onnx, model.pixels.onnx, …"""
    return f"model{'' if precision == 'fp32' else '.' + precision}{'.pixels' if pixels else ''}{module.SUFFIX}"


def artifact_files(wanted: Mapping[str, Sequence[str]], pixels: bool) -> dict[str, str]:
    """File → precision of all that is built. wanted: format → its precisions. pixels: as `variants` has it."""
    return {
        file_name(FORMATS[name], precision, with_pixels): precision
        for name, precisions in wanted.items()
        for precision, with_pixels in variants(name, precisions, pixels)
    }


def lacking(module: ModuleType) -> str | None:
    """Why the format cannot be built here, with the command that mends it; None when it can."""
    for package, extra in module.REQUIRES.items():
        if not any(find_spec(name) for name in package.split("|")):
            return f"needs the package {package.replace('|', ' or ')}: pip install 'stageproof[{extra}]'"
    return None


def _known(name: str, names: Sequence[str] | dict[str, ModuleType], kind: str) -> None:
    if name not in names:
        close = get_close_matches(name.lower(), names, n=1)
        suggestion = f" Did you mean {close[0]!r}?" if close else ""
        raise InputError(f"No {kind} is called {name!r}.{suggestion} There are: {', '.join(names)}.")
