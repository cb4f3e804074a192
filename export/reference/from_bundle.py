"""The reference of a bundle that is built again: its weights come from a run or checkpoint, all else from its manifest.

A checkpoint does not say at what size or with what mean its network was trained. Taken from options, a mistake in them
would be in the reference and in the artifact alike, and the two would agree. The manifest knows, and its golden images,
whose logits were recorded when the bundle was made, show whether the reference is still the same one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from stageproof.export.reference.model import Reference, from_checkpoint, from_run, run_of_weights
from stageproof.export.reference.rebuild_options import spoken
from stageproof.runtime.bundle.manifest import Manifest, ModelInfo, read_manifest
from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.images.raster import read_image
from stageproof.runtime.preprocess import preprocess
from stageproof.runtime.serialization.digests import sha256_file
from stageproof.runtime.text.hints import command
from stageproof.train.runs.directory import WEIGHTS

ALIKE = 1e-3
"""Largest difference of a logit, relative to the largest one, between the reference here and where the bundle was made,
both in float32. Processors and versions of PyTorch differ by about 1e-5."""

_WRITTEN_ANEW = ("stageproof", "neurostage", "exported", "packages")
"""Of the provenance: what each export states of itself."""


def reference_of(bundle: Path, source: Path) -> Reference:
    """The weights in `source`, a run or a checkpoint, as the model that the manifest describes.

    Raises CheckpointError where they are not those that the bundle was made from, or the run says otherwise; InputError
    where the checkpoint, or a file beside it, states another order of the classes.
    """
    manifest = read_manifest(bundle)
    model = manifest.model
    if source.is_file() and sha256_file(source) != model.digest:
        source = run_of_weights(source) or source  # the same weights, saved again
    path = source / WEIGHTS if source.is_dir() else source
    if not path.is_file() or sha256_file(path) != model.digest:
        raise CheckpointError(f"{source} holds other weights than {bundle} was made from. Name its run or checkpoint.")
    if source.is_dir():
        found = from_run(source)
        if differs := _difference(found.info, model):
            raise CheckpointError(
                f"{source} and {bundle} are of the same weights and contradict each other: {differs}. One of them is "
                f"wrong about its model. Export the run anew: {command('export', source, '--out', 'ANOTHER')}"
            )
    else:
        spec = model.input
        found = from_checkpoint(source, model.architecture, spec.height, (), spec.mean, spec.std, bundle)
    kept = {key: value for key, value in manifest.provenance.items() if key not in _WRITTEN_ANEW}
    order = replace(found.order, origin=manifest.labels_from or found.order.origin)
    return replace(found, info=model, provenance=kept, order=order)


def assert_same_answers(reference: Reference, bundle: Path, manifest: Manifest) -> None:
    """Raise CheckpointError unless the reference answers the bundle's golden images as it did when they were made."""
    if not manifest.golden:
        return
    images = [preprocess(read_image(bundle / golden.file), reference.info.input) for golden in manifest.golden]
    here = reference.logits(np.stack(images))
    there = np.array([golden.logits for golden in manifest.golden])
    difference, allowed = float(np.abs(here - there).max()), ALIKE * max(1.0, float(np.abs(there).max()))
    if not difference <= allowed:
        raise CheckpointError(
            f"the reference does not answer the golden images of {bundle} as it did when the bundle was made: a "
            f"logit differs by {difference:.1e}, expected at most {allowed:.1e}. Nothing was built. Export the run "
            "or checkpoint to another --out."
        )


def calibration_since(source: Path, model: ModelInfo) -> str | None:
    """What to say where the run was calibrated anew since the bundle was made; None where it was not."""
    info = from_run(source).info if source.is_dir() else model
    if (info.temperature, info.abstain_below, info.study) == (model.temperature, model.abstain_below, model.study):
        return None
    other = "" if info.study == model.study else ", and its rule for studies another"
    return (
        f"{source} was evaluated since: its temperature is {info.temperature:.4g}, its abstention threshold "
        f"{info.abstain_below:.4g}{other}. --rebuild keeps the bundle's own, {model.temperature:.4g} and "
        f"{model.abstain_below:.4g}. To take them over: {command('export', 'RUN')}"
    )


def _difference(run: ModelInfo, bundle: ModelInfo) -> str:
    ours = {**run.to_dict(), **run.input.to_dict()}
    theirs = {**bundle.to_dict(), **bundle.input.to_dict()}
    fitted = ("input", "temperature", "abstain_below", "study")
    keys = [key for key in ours if key not in fitted and ours[key] != theirs[key]]
    return "; ".join(f"{key} is {spoken(ours[key])} there and {spoken(theirs[key])} here" for key in keys)
