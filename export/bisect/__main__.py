"""`python -m export.bisect BUNDLE --artifact FILE`: finds the first layer whose output differs from the reference."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from stageproof.runtime.cli.exit_status import exit_status, report_error, require_or_exit
from stageproof.runtime.cli.sources import named_or_default
from stageproof.runtime.system.work_folders import work_folder

if __name__ == "__main__":
    require_or_exit("export", "tyro", "torch", "torchvision", "safetensors")

import tyro

from stageproof.runtime.bundle.manifest import read_manifest
from stageproof.runtime.errors import CheckpointError, InputError, StageproofError
from stageproof.runtime.labels import ASSUMED, order_line
from stageproof.runtime.predictor import DEFAULT_BUNDLE
from stageproof.runtime.text.hints import program
from stageproof.train.terminal.messages import shown

if TYPE_CHECKING:
    import numpy as np

    from stageproof.export.reference.model import Reference


logger = logging.getLogger("stageproof.export.bisect")  # __name__ is __main__ under python -m


@dataclass(frozen=True)
class Options:
    """The artifact, its reference and the images to run."""

    bundle: Annotated[Path, tyro.conf.Positional] = Path(DEFAULT_BUNDLE)
    """The bundle."""
    remote: Annotated[str | None, tyro.conf.arg(name="from", metavar="SOURCE")] = None
    """In place of BUNDLE: a path, or hf:OWNER/NAME[@REVISION], a bundle in a repository of the Hugging Face Hub.
    It is downloaded."""
    artifact: str = "model.onnx"
    """An .onnx or .xml file of the bundle, possibly a rejected one."""
    source: Path | None = None
    """The run or checkpoint that was exported. Default: the run under runs/ with the bundle's weights."""
    architecture: str | None = None
    """Architecture of a foreign checkpoint. Default: the bundle's."""
    parity_data: Path | None = None
    """Images to run. Default: as for python -m export."""
    images: int = 8
    """Number of images to run."""
    tolerance: float = 1e-3
    """Largest accepted relative difference of a layer's output."""
    plot: Path | None = None
    """Write a plot of the difference per layer to this file."""
    json: bool = False
    """Print the result as one JSON object."""


@dataclass(frozen=True)
class Layer:
    """The difference between one layer of the artifact and the same layer of the reference."""

    name: str
    difference: float
    """Of the outputs: root mean square difference, relative to the reference's root mean square; 0: identical."""
    added: float
    """`difference` minus the same figure of the layer's inputs, 0 or more."""


@shown()
def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 all layers are within tolerance, 1 a layer is not, 2 invalid input."""
    options = tyro.cli(
        Options,
        args=argv,
        prog=program("export.bisect"),
        description="Find the first layer whose output differs between an artifact and its reference.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    try:
        options = replace(options, bundle=named_or_default(options.bundle, options.remote), remote=None)
        manifest = read_manifest(options.bundle)
        if manifest.labels_from == ASSUMED:
            logger.info(order_line(manifest.model.labels, manifest.labels_from))
        layers = bisect(options)
    except StageproofError as error:
        return report_error(error)
    first = next((layer for layer in layers if not layer.difference <= options.tolerance), None)
    most = sorted(layers, key=lambda layer: -layer.added)[:10]
    if options.plot:
        _plot(layers, options.artifact, options.tolerance, options.plot)
    if options.json:
        found = {"first": first and asdict(first), "most": [asdict(layer) for layer in most]}
        print(json.dumps(found, indent=2))
    else:
        _print(first, most, len(layers), options)
    return 0 if first is None else 1


def bisect(options: Options) -> list[Layer]:
    """The differences of all common layers, in graph order, with artifact and reference run on the same images.

    Raises InputError for a missing or unsupported file, CheckpointError if the reference is not found.
    """
    import torch

    from stageproof.export.bisect.activations import activations
    from stageproof.export.data.comparison import comparison, preprocessed
    from stageproof.export.graphs.float_graph import exported
    from stageproof.runtime.system.cpus import available_cpus

    torch.set_num_threads(available_cpus())
    if ".pixels." in options.artifact:
        raise InputError(
            f"{options.artifact} takes pixels. Give the artifact without '.pixels', which has the same layers."
        )
    reference = _reference(options)
    samples = comparison(reference.run, options.images, options.parity_data, classes=reference.info.classes).samples
    images = preprocessed(samples, reference.info.input)
    with work_folder() as work:
        path = _unpack(options, work / "artifact")
        graph = work / "fp32.onnx"
        graph.write_bytes(exported(reference, "fp32").SerializeToString())
        expected, got = activations(graph, images), activations(path, images)
    common = [layer for layer in expected if layer in got]
    if not common:
        raise InputError(f"{options.artifact} has no layer in common with the reference. Is it of this model?")
    rows = []
    for layer in common:
        before = _relative(expected[layer].input, got[layer].input)
        after = _relative(expected[layer].output, got[layer].output)
        rows.append(Layer(layer, after, max(0.0, after - before)))
    return rows


def _relative(reference: np.ndarray, artifact: np.ndarray) -> float:
    import numpy as np

    scale = float(np.sqrt(np.square(reference).mean()))
    return float(np.sqrt(np.square(artifact - reference).mean())) / (scale or 1.0)


def _reference(options: Options) -> Reference:
    from stageproof.export.reference.from_bundle import described_by
    from stageproof.export.reference.graph_file import from_file
    from stageproof.export.reference.model import from_run, run_of_weights, source_of

    manifest = read_manifest(options.bundle)
    model = manifest.model
    source = source_of(options.bundle, options.source)
    if not source.is_dir():
        source = run_of_weights(source) or source
    if source.is_dir():
        reference = from_run(source)
    else:
        described = described_by(options.bundle, manifest)
        described = replace(described, architecture=options.architecture or described.architecture)
        reference = from_file(source, described)
    if reference.info.digest != model.digest:
        raise CheckpointError(f"{source} has other weights than {options.bundle} was made from. Give another --source.")
    return reference


def _unpack(options: Options, folder: Path) -> Path:
    """Path of the artifact, copied with its .bin file, if any, into `folder` under its own name."""
    folder.mkdir()
    for name in (options.artifact, f"{Path(options.artifact).stem}.bin"):
        for path in (options.bundle / name, options.bundle / "rejected" / f"{name}.rejected"):
            if path.is_file():
                shutil.copyfile(path, folder / name)
                break
    target = folder / options.artifact
    if not target.is_file():
        there = [path.name.removesuffix(".rejected") for path in options.bundle.rglob("model*") if path.is_file()]
        raise InputError(f"{options.bundle} has no {options.artifact}. It has: {', '.join(sorted(set(there)))}.")
    return target


def _print(first: Layer | None, most: list[Layer], count: int, options: Options) -> None:
    lines = [f"{options.artifact}: {count} layers compared with the float32 graph on {options.images} images"]
    if first is None:
        lines.append(f"no layer differs by more than {options.tolerance:g}")
    else:
        lines.append(f"first layer beyond {options.tolerance:g}: {first.name} ({first.difference:.2e})")
    lines.append(f"\n{'largest added difference':<28}{'added':>10}{'total':>10}")
    lines += [f"{layer.name:<28}{layer.added:>10.2e}{layer.difference:>10.2e}" for layer in most]
    print("\n".join(lines))


def _plot(layers: list[Layer], title: str, tolerance: float, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 4), layout="constrained")
    axes.semilogy([max(layer.difference, 1e-9) for layer in layers], marker="o", markersize=3, label="total difference")
    axes.semilogy([max(layer.added, 1e-9) for layer in layers], linestyle=":", label="added by the layer")
    axes.axhline(tolerance, color="grey", linewidth=1, label="tolerance")
    axes.set_xticks(range(len(layers)), [layer.name for layer in layers], rotation=90, fontsize=5)
    axes.set_ylabel("relative difference")
    axes.set_title(title)
    axes.legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(exit_status(main, extra="export"))
