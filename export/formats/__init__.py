"""The export formats, one module each. `FORMATS` is the table behind the command line and the error messages.

A format module has

    NAME          name on the command line
    PRECISIONS    supported precisions
    SUFFIX        suffix of the artifact's file
    REQUIRES      {module to import: extra of stageproof that installs it}, for building
    NEEDS_GPU     whether running the artifact needs a GPU, so that a machine without one cannot check it
    PIXELS        whether the artifact can include the preprocessing: build(..., pixels=True)
    build(...)    job, precision and path → Built; writes the files
    inspect(...)  path → Found, the precision counted in the file
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
"""In build order: later formats reuse the ONNX graphs of earlier ones."""

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")


def combinations(to: Sequence[str], precision: Sequence[str]) -> dict[str, list[str]]:
    """Format → its precisions among those requested, in the order of the tables; ``all`` selects all.

    Raises InputError for an unknown name, and for a format that supports none of the requested precisions.
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
                f"{name} does not support {' or '.join(precision)}; it supports {', '.join(module.PRECISIONS)}."
            )
        if has:
            wanted[name] = has
    return wanted


def variants(name: str, precisions: Sequence[str], pixels: bool) -> list[tuple[str, bool]]:
    """(precision, with preprocessing) of each artifact of one format; with preprocessing only if `pixels` is set and
    the format supports it."""
    both = (False, True) if pixels and FORMATS[name].PIXELS else (False,)
    return [(precision, with_pixels) for precision in precisions for with_pixels in both]


def assert_pixels(wanted: Sequence[str], preprocessing: bool, softmax: bool) -> None:
    """Raise InputError if --with-preprocessing or --with-softmax has no effect on the formats `wanted`."""
    if softmax and not preprocessing:
        raise InputError("--with-softmax needs --with-preprocessing. Add it, or leave --with-softmax out.")
    can = [name for name, module in FORMATS.items() if module.PIXELS]
    if preprocessing and not set(can) & set(wanted):
        raise InputError(f"--with-preprocessing supports {', '.join(can)}, not {', '.join(wanted)}.")


def file_name(module: ModuleType, precision: str, pixels: bool = False) -> str:
    """The artifact's name in the bundle: model.onnx, model.int8.onnx, model.pixels.onnx, …"""
    return f"model{'' if precision == 'fp32' else '.' + precision}{'.pixels' if pixels else ''}{module.SUFFIX}"


def artifact_files(wanted: Mapping[str, Sequence[str]], pixels: bool) -> dict[str, str]:
    """File → precision of all artifacts to build. wanted: format → precisions. pixels: as in `variants`."""
    return {
        file_name(FORMATS[name], precision, with_pixels): precision
        for name, precisions in wanted.items()
        for precision, with_pixels in variants(name, precisions, pixels)
    }


def missing_package(module: ModuleType) -> str | None:
    """Why the format cannot be built here, with the install command; None if it can."""
    for package, extra in module.REQUIRES.items():
        if not any(find_spec(name) for name in package.split("|")):
            return f"needs the package {package.replace('|', ' or ')}: pip install 'stageproof[{extra}]'"
    return None


def _known(name: str, names: Sequence[str], kind: str) -> None:
    if name not in names:
        close = get_close_matches(name.lower(), names, n=1)
        suggestion = f" Did you mean {close[0]!r}?" if close else ""
        raise InputError(f"Unknown {kind} {name!r}.{suggestion} Available: {', '.join(names)}.")
