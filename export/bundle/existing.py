"""Decides what an export keeps, rebuilds or replaces of an existing bundle at --out, and logs it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from stageproof.export.formats import FORMATS
from stageproof.export.options import Options
from stageproof.export.preprocessing import TAKES
from stageproof.export.reference.model import Reference
from stageproof.runtime.artifacts.metadata import read_metadata
from stageproof.runtime.bundle.manifest import FILE, Artifact, Manifest, ModelInfo
from stageproof.runtime.bundle.verify import verified
from stageproof.runtime.errors import BundleError
from stageproof.runtime.labels import ORIGINS

logger = logging.getLogger(__name__)

Wanted = dict[str, list[str]]
"""Format → precisions, as returned by `export.formats.combinations`."""


def present(bundle: Path) -> Manifest | None:
    """The manifest of the bundle at `bundle`; None if there is no bundle.

    Raises BundleError if its files were changed after the export: none of them is reused.
    """
    if not (bundle / FILE).is_file():
        return None
    try:
        return verified(bundle)
    except BundleError as error:
        raise BundleError(f"{error} To replace it, remove {bundle} first, or give another --out.") from error


def with_existing(
    options: Options, reference: Reference, manifest: Manifest | None, wanted: Wanted
) -> tuple[Options, Wanted]:
    """(options, wanted), extended by the existing bundle's artifacts that must be rebuilt.

    An artifact's metadata contains the model's temperature, thresholds, rule for studies and the origin of its class
    order. If these changed since, for example by `python -m train.evaluate`, all artifacts of the bundle are rebuilt
    with the new values. A bundle of another model is replaced.
    """
    info = reference.info
    if manifest is None or same_metadata(manifest, reference):
        return options, wanted
    old, files = manifest.model, ", ".join(artifact.file for artifact in manifest.artifacts) or "no artifact"
    if replace(old, temperature=info.temperature, abstain_below=info.abstain_below, study=info.study) != info:
        logger.warning(
            f"{options.out} contains another model ({_differences(old, info)}). Its artifacts are replaced: {files}. "
            "To keep them, give another --out."
        )
        return options, wanted
    again = [artifact for artifact in manifest.artifacts if artifact.precision not in wanted.get(artifact.format, ())]
    was, now = _calibration(old), _calibration(info)
    if old == info:
        was, now = (f"a class order {ORIGINS[origin]}" for origin in (manifest.labels_from, reference.order.origin))
    logger.info(
        f"{options.out} was exported with {was}; the model now has {now}. Artifacts contain these values, so all are "
        f"rebuilt: {files}."
    )
    pixels = [artifact for artifact in manifest.artifacts if artifact.takes == TAKES]
    gives = [read_metadata(options.out / artifact.file, artifact.format) for artifact in pixels]
    return replace(
        options,
        with_preprocessing=options.with_preprocessing or bool(pixels),
        with_softmax=options.with_softmax or any(one is not None and one.gives == "probabilities" for one in gives),
    ), _merged(wanted, again)


def same_metadata(manifest: Manifest, reference: Reference) -> bool:
    """Whether the bundle's artifacts have the same metadata as those built from the reference would have."""
    return manifest.model == reference.info and manifest.labels_from in (None, reference.order.origin)


def _merged(wanted: Wanted, again: list[Artifact]) -> Wanted:
    pairs = {(artifact.format, artifact.precision) for artifact in again}
    pairs |= {(name, precision) for name, precisions in wanted.items() for precision in precisions}
    merged = {
        name: [precision for precision in module.PRECISIONS if (name, precision) in pairs]
        for name, module in FORMATS.items()
    }
    return {name: precisions for name, precisions in merged.items() if precisions}


def _calibration(model: ModelInfo) -> str:
    text = f"temperature {model.temperature:.4g} and abstention threshold {model.abstain_below:.4g}"
    if (rule := model.study) is None:
        return text
    return f"{text}, study rule with slope {rule.slope:.4g} and threshold {rule.abstain_below:.4g}"


def _differences(old: ModelInfo, new: ModelInfo) -> str:
    """Readable list of the differences between the two models."""
    if old.digest != new.digest:
        return f"weights {old.digest[:12]}…, not {new.digest[:12]}…"
    pairs = [("architecture", old.architecture, new.architecture)]
    pairs += [("head", old.network.head, new.network.head)]
    pairs += [("labels", ", ".join(old.labels), ", ".join(new.labels))]
    pairs += [("clinical order", ", ".join(old.classes.names), ", ".join(new.classes.names))]
    pairs += [("positive classes", ", ".join(old.classes.positive), ", ".join(new.classes.positive))]
    pairs += [(f"input {key}", value, new.input.to_dict()[key]) for key, value in old.input.to_dict().items()]
    return "the same weights with other " + "; ".join(
        f"{name}: {old_value}, not {new_value}" for name, old_value, new_value in pairs if old_value != new_value
    )
