"""The reference of an export from a file of another program: a checkpoint, or an ONNX or TorchScript file, which is
run by ONNX Runtime or torch."""

from __future__ import annotations

import warnings
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stageproof.export.options import IMAGE_SIZE
from stageproof.export.reference import inferred
from stageproof.export.reference.checkpoint import Described, class_order, from_checkpoint, input_spec
from stageproof.export.reference.graph_source import ONNX, TORCHSCRIPT, assert_classes, assert_trusted, kind_of
from stageproof.export.reference.inferred import ASSUMED, FROM_FILE, FROM_OPTION, Fact
from stageproof.export.reference.model import Reference
from stageproof.export.reference.onnx_file import OnnxFile
from stageproof.runtime.artifacts.metadata import ArtifactMetadata, descriptions, read_description
from stageproof.runtime.bundle.manifest import TENSOR, ModelInfo
from stageproof.runtime.errors import BundleError, CheckpointError, InputError
from stageproof.runtime.preprocess import InputSpec
from stageproof.runtime.serialization.digests import sha256_file
from stageproof.train.foreign.class_order import ClassOrder

_LARGEST_TEXT = 1_000_000
"""Maximum size in bytes of an extra file that is read."""


def from_file(path: Path, described: Described) -> Reference:
    """The model of the file. Raises CheckpointError, InputError or TrustError as `from_checkpoint`, `from_onnx` and
    `from_torchscript`."""
    kind = kind_of(path)
    if kind is None:
        return from_checkpoint(path, described)
    return (from_onnx if kind == ONNX else from_torchscript)(path, described)


def from_onnx(path: Path, described: Described) -> Reference:
    """The model of an ONNX file, as ONNX Runtime computes it.

    Raises CheckpointError for a graph that is no classifier of float32 images, InputError for a description that
    contradicts it, BackendUnavailable without ONNX Runtime.
    """
    _assert_unnamed(path, described)
    model = OnnxFile(path)
    own = _own_metadata(path, "onnx")
    height, width = model.size
    facts = [Fact("format", f"ONNX, opset {model.opset}", FROM_FILE), Fact("channels", str(model.channels), FROM_FILE)]
    if model.softmax_removed:
        facts.append(Fact("left out", "the final Softmax, so that the output is logits", FROM_FILE))
    stated = {one.key: one.value for one in model.proto.metadata_props}
    return _reference(path, described, model, ONNX, own, model.channels, (height, width), facts, stated)


def from_torchscript(path: Path, described: Described) -> Reference:
    """The model of a TorchScript file, whose code runs in this process.

    Raises TrustError unless it is trusted; else as `from_onnx`.
    """
    assert_trusted(path, described.trust_code)
    _assert_unnamed(path, described)
    own = _own_metadata(path, "torchscript")
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # of the deprecation of TorchScript
            model = torch.jit.load(file, "cpu").eval()
    except RuntimeError as error:
        raise CheckpointError(f"{path} cannot be loaded as TorchScript: {str(error).splitlines()[0]}") from error
    size = own.model.input.height if own else described.image_size or IMAGE_SIZE
    wanted = own.model.input.channels if own else len(described.mean)
    channels = _channels(path, model, wanted, size)
    facts = [
        Fact("format", "TorchScript", FROM_FILE),
        Fact("channels", str(channels), FROM_FILE if own else FROM_OPTION if wanted else "by running it"),
    ]
    return _reference(path, described, model, TORCHSCRIPT, own, channels, (None, None), facts, _extra_files(path))


def _extra_files(path: Path) -> dict[str, str]:
    """Name without suffix → text of the extra files of torch.jit.save, in which programs write the classes."""
    found = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = entry.filename.partition("/extra/")[2]
            if name and entry.file_size <= _LARGEST_TEXT:
                with suppress(UnicodeDecodeError, zipfile.BadZipFile), archive.open(entry) as file:  # not text
                    found[Path(name).stem] = file.read(_LARGEST_TEXT).decode("utf-8-sig")
    return found


def _reference(
    path: Path,
    described: Described,
    model: nn.Module,
    kind: str,
    own: ArtifactMetadata | None,
    channels: int,
    fixed: tuple[int | None, int | None],
    facts: list[Fact],
    stated: dict[str, str],
) -> Reference:
    """stated: the metadata of the file, in which a class order is looked for."""
    digest = sha256_file(path)
    if own is not None:
        spec, order = own.model.input, _order_of(own, path)
        _assert_agrees(path, described, own.model)
        _classes(path, model, spec)
        facts.append(Fact("input, classes", "as the file describes", FROM_FILE))
        info = replace(own.model, architecture=kind, digest=digest, head=None)
    else:
        size, size_from = _size(path, fixed, described.image_size)
        spec, normalised_from = input_spec(str(path), channels, size, described.mean, described.std)
        order = class_order(path, stated, _classes(path, model, spec), described)
        facts += [*inferred.class_facts(order), *inferred.input_facts(spec, size_from, normalised_from)]
        info = ModelInfo(kind, digest, order.labels, order.classes, spec)
    provenance = {"checkpoint": f"{kind}-{digest[:12]}", inferred.KEY: inferred.record(facts)}
    return Reference(model, info, provenance, None, order, path)


def _assert_unnamed(path: Path, described: Described) -> None:
    if described.architecture not in (None, ONNX, TORCHSCRIPT) or described.key:
        option = "--checkpoint-key" if described.key else "--architecture"
        raise InputError(f"{option} is for state dicts; {path} is a graph, which contains its network. Leave it out.")


def _size(path: Path, fixed: tuple[int | None, int | None], given: int | None) -> tuple[tuple[int, int], str]:
    height, width = fixed
    if given is not None and any(side not in (None, given) for side in fixed):
        raise InputError(
            f"--image-size is {given}, but {path} takes images of {height or 'any'} × {width or 'any'}. Leave it out."
        )
    if height and width:
        return (height, width), FROM_FILE
    size = given or IMAGE_SIZE
    return (height or size, width or size), FROM_OPTION if given else f"{ASSUMED}; if not, --image-size"


def _channels(path: Path, model: nn.Module, wanted: int, size: int) -> int:
    """Input channels: `wanted`, or, if 0, the first of 3 and 1 with which the program runs."""
    reason = ""
    for channels in [wanted] if wanted else [3, 1]:
        try:
            with torch.inference_mode():
                model(torch.zeros(1, channels, size, size))
            return channels
        except Exception as error:  # noqa: BLE001  the program may raise anything
            reason = reason or str(error).strip().splitlines()[-1]
    raise CheckpointError(
        f"{path} does not run with a float32 image of {wanted or '3 or 1'} channels and {size} × {size} pixels: "
        f"{reason}. Give --image-size, or --mean and --std with a value for each channel."
    )


def _classes(path: Path, model: nn.Module, spec: InputSpec) -> int:
    """Number of classes. Raises CheckpointError unless the model returns the same (1, classes) logits for the same
    image, and other logits for another image."""
    images = torch.randn(2, *spec.shape, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            rows = [model(images[at : at + 1]) for at in (0, 1, 0)]
    except Exception as error:  # the program may raise anything
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"{path} does not run with a float32 image of shape {(1, *spec.shape)}: {reason[-1]}. Give --image-size."
        ) from error
    if not all(isinstance(row, torch.Tensor) for row in rows):
        raise CheckpointError(f"{path} returns {type(rows[0]).__name__}, expected one tensor of logits.")
    count = assert_classes(path, rows[0].shape)
    if rows[0].dtype != torch.float32:
        raise CheckpointError(f"{path} returns {rows[0].dtype}, expected float32 logits.")
    if not torch.equal(rows[0], rows[2]):
        raise CheckpointError(f"{path} gives other outputs for the same image: dropout is on. Save it after eval().")
    both = torch.cat(rows[:2])
    if (both >= 0).all() and torch.allclose(both.sum(1), torch.ones(2), atol=1e-4):
        raise CheckpointError(
            f"{path} returns probabilities (each row sums to 1), expected logits. Save it without its softmax."
        )
    return count


def _own_metadata(path: Path, format_name: str) -> ArtifactMetadata | None:
    """The description that an export wrote into the file; None for files of other programs.

    Raises CheckpointError for an artifact that takes pixels, returns probabilities or is not in float32.
    """
    suffix = {"onnx": ".onnx", "torchscript": ".ts"}[format_name]
    try:
        with path.open("rb") as file:
            texts = descriptions(path.with_name(f"{path.stem}{suffix}"), format_name, file.read())
        if not texts:
            return None
        own = read_description(texts[0], str(path))
    except BundleError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if own.takes not in (None, TENSOR) or own.gives != "logits":
        raise CheckpointError(f"{path} takes pixels or returns probabilities. Give the artifact without '.pixels'.")
    if own.precision not in (None, "fp32"):
        raise CheckpointError(
            f"{path} is an artifact in {own.precision}: artifacts are compared with float32. Export the run, the "
            "checkpoint, or the fp32 artifact."
        )
    return own


def _order_of(own: ArtifactMetadata, path: Path) -> ClassOrder:
    return ClassOrder(own.model.labels, own.labels_from, f"from {path}", own.model.classes)


def _assert_agrees(path: Path, described: Described, own: ModelInfo) -> None:
    """Raise InputError for a description that differs from that in the file."""
    spec = own.input
    pairs: list[tuple[str, Any, Any]] = [
        ("--image-size", described.image_size, spec.height),
        ("--labels", described.classes.labels, own.labels),
        ("--classes", described.classes.classes, own.classes),
        ("--mean", tuple(described.mean), spec.mean),
        ("--std", tuple(described.std), spec.std),
    ]
    for option, given, recorded in pairs:
        if given not in (None, (), recorded):
            raise InputError(f"{option} differs from what {path} says about itself. Leave {option} out.")
