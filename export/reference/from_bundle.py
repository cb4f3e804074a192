"""The reference for rebuilding a bundle: weights from a run or checkpoint, everything else from the bundle's manifest.

A checkpoint does not record input size and normalisation. If they came from options, a mistake would be the same in
reference and artifact, and the comparison could not find it. The manifest records them, and its golden images, whose
logits were stored when the bundle was made, verify that the reference still predicts the same.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from stageproof.export.reference.checkpoint import Described, digest_of
from stageproof.export.reference.graph_file import from_file
from stageproof.export.reference.graph_source import kind_of
from stageproof.export.reference.model import Reference, from_run, run_of_weights
from stageproof.export.reference.rebuild_options import readable
from stageproof.runtime.bundle.manifest import Manifest, ModelInfo, read_manifest
from stageproof.runtime.errors import CheckpointError, InputError
from stageproof.runtime.images.raster import read_image
from stageproof.runtime.preprocess import preprocess
from stageproof.runtime.serialization.digests import sha256_file
from stageproof.runtime.text.hints import command
from stageproof.train.runs.directory import WEIGHTS

MAX_LOGIT_DIFFERENCE = 1e-3
"""Largest accepted difference of a logit, relative to the largest logit, between the reference on this machine and on
the one that made the bundle, both float32. CPUs and PyTorch versions differ by about 1e-5."""

_WRITTEN_ANEW = ("stageproof", "neurostage", "exported", "packages")
"""Provenance entries that every export writes anew."""


def reference_of(bundle: Path, source: Path, key: str | None = None, trust_code: bool = False) -> Reference:
    """The reference with the weights in `source`, a run or a checkpoint, and the model description in the manifest.

    key: the state dict of the checkpoint that the user names; None: the one that the manifest names, if any.

    Raises CheckpointError if the bundle was made from other weights, or the run contradicts the manifest; InputError if
    the checkpoint, or a file beside it, states another class order.
    """
    manifest = read_manifest(bundle)
    model = manifest.model
    recorded = manifest.provenance.get("checkpoint_key")
    if key not in (None, recorded):
        raise InputError(
            f"--checkpoint-key is {key}, but {bundle} was made with {recorded or 'none'}. --rebuild uses the bundle's "
            "value: leave --checkpoint-key out, or export to another --out."
        )
    if source.is_file() and digest_of(source, recorded) != model.digest:
        source = (None if kind_of(source) else run_of_weights(source)) or source  # the same weights in another file
    path = source / WEIGHTS if source.is_dir() else source
    if not path.is_file() or (sha256_file(path) if source.is_dir() else digest_of(path, recorded)) != model.digest:
        raise CheckpointError(
            f"{source} has other weights than {bundle} was made from. Give the run or checkpoint it came from."
        )
    if source.is_dir():
        found = from_run(source)
        if differs := _difference(found.info, model):
            raise CheckpointError(
                f"{source} and {bundle} have the same weights and contradict each other: {differs}. One of them was "
                f"changed. Export the run again: {command('export', source, '--out', 'ANOTHER')}"
            )
    else:
        found = from_file(source, replace(described_by(bundle, manifest), trust_code=trust_code))
    kept = {key: value for key, value in manifest.provenance.items() if key not in _WRITTEN_ANEW}
    order = replace(found.order, origin=manifest.labels_from or found.order.origin)
    return replace(found, info=model, provenance=kept, order=order)


def described_by(bundle: Path, manifest: Manifest) -> Described:
    """What the bundle says about the checkpoint that it was made from."""
    model, key = manifest.model, manifest.provenance.get("checkpoint_key")
    spec = model.input
    return Described(model.architecture, spec.height, mean=spec.mean, std=spec.std, key=key, bundle=bundle)


def assert_same_logits(reference: Reference, bundle: Path, manifest: Manifest) -> None:
    """Raise CheckpointError unless the reference's logits of the bundle's golden images are the recorded ones."""
    if not manifest.golden:
        return
    images = [preprocess(read_image(bundle / golden.file), reference.info.input) for golden in manifest.golden]
    computed = reference.logits(np.stack(images))
    recorded = np.array([golden.logits for golden in manifest.golden])
    difference, allowed = (
        float(np.abs(computed - recorded).max()),
        MAX_LOGIT_DIFFERENCE * max(1.0, float(np.abs(recorded).max())),
    )
    if not difference <= allowed:
        raise CheckpointError(
            f"the reference's logits of the golden images of {bundle} differ by {difference:.1e} from the recorded "
            f"ones, expected at most {allowed:.1e}. Nothing was built. Export the run or checkpoint to another --out."
        )


def calibration_change(source: Path, model: ModelInfo) -> str | None:
    """Message if the run was calibrated again after the bundle was made; None if not."""
    info = from_run(source).info if source.is_dir() else model
    if (info.temperature, info.abstain_below, info.study) == (model.temperature, model.abstain_below, model.study):
        return None
    other = "" if info.study == model.study else ", and its study rule has changed"
    return (
        f"{source} was evaluated after the bundle was made: its temperature is {info.temperature:.4g}, its abstention "
        f"threshold {info.abstain_below:.4g}{other}. --rebuild keeps the bundle's values, {model.temperature:.4g} and "
        f"{model.abstain_below:.4g}. To use the new ones: {command('export', 'RUN')}"
    )


def _difference(run: ModelInfo, bundle: ModelInfo) -> str:
    ours = {**run.to_dict(), **run.input.to_dict()}
    theirs = {**bundle.to_dict(), **bundle.input.to_dict()}
    fitted = ("input", "temperature", "abstain_below", "study")
    keys = [key for key in ours if key not in fitted and ours[key] != theirs[key]]
    return "; ".join(f"{key} {readable(ours[key])} in the run, {readable(theirs[key])} in the bundle" for key in keys)
