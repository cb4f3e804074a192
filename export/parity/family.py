"""Confidence level of each artifact's bound (Bonferroni over a bundle's artifacts), and the required patient count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from stageproof.export.data.sampling import GROUPS, UNKNOWN
from stageproof.export.options import FEW, MANY, Options
from stageproof.export.parity.coverage import LEAST_IMAGES
from stageproof.export.parity.report import tolerance_for
from stageproof.export.statistics.binomial import ALPHA, level
from stageproof.export.statistics.clustered import SLICES_OF_UNKNOWN, Counts, bound, minimum_patients, within
from stageproof.runtime.bundle.manifest import Artifact
from stageproof.runtime.errors import InputError


def limit_of(options: Options, precisions: Iterable[str]) -> int:
    """Maximum number of comparison images for these precisions."""
    if options.parity_images is not None:
        return options.parity_images
    return MANY if any(_bounded(precision, options) for precision in precisions) else FEW


def artifacts_by_bound(options: Options, requested: Mapping[str, str], kept: Sequence[Artifact] = ()) -> int:
    """Number of the bundle's artifacts that are judged by an upper bound: requested ones and others that it keeps.

    requested: file → precision.
    """
    files = {file for file, precision in requested.items() if _bounded(precision, options)}
    return len(files | {artifact.file for artifact in kept if _was_bounded(artifact)})


def family(artifacts: int, kept: Sequence[Artifact], built: set[str]) -> dict[str, Any]:
    """Joint confidence of a bundle's bounds, JSON-ready. `any_passes_wrongly`: error probability of all together.

    kept: artifacts that the bundle had before; files in `built` replace them. They passed at the confidence level of
    their own export, which an additional artifact does not change.
    """
    before = [entry for entry in kept if entry.file not in built and _was_bounded(entry)]
    shares = [1 - float(entry.checks[0].parity.get("confidence", 0.95)) for entry in before]
    new = max(0, artifacts - len(before))
    error = min(1.0, sum(shares) + new * ALPHA / max(1, artifacts))
    return {"bounded_artifacts": artifacts, "confidence": level(artifacts), "any_passes_wrongly": error}


def _bounded(precision: str, options: Options) -> bool:
    return tolerance_for(precision, options.tolerance, options.flip_tolerance).flips > 0


def _was_bounded(artifact: Artifact) -> bool:
    return any(float(check.parity.get("flip_tolerance", 0)) > 0 for check in artifact.checks)


def check_count(
    people: np.ndarray | int,
    source: str,
    precisions: Sequence[str],
    options: Options,
    artifacts: int = 1,
    unit: str = "patients",
) -> None:
    """Raise InputError if there are fewer comparison images, or patients, than a precision's tolerance requires.

    people: (N,) int, patient of each distinct image; N if patients are unknown.
    """
    known = None if isinstance(people, int) else people
    count = people if isinstance(people, int) else len(people)
    if count < LEAST_IMAGES:
        raise InputError(
            f"{source} has {count} distinct comparison images; at least {LEAST_IMAGES} are needed: with fewer, 20 % "
            "changed predictions cannot be excluded at 95 % confidence. Give more: --parity-data DIR_OR_PARQUET."
        )
    confidence = level(artifacts)
    none = Counts.of(np.zeros(count, bool), known)
    for precision in precisions:
        allowed = tolerance_for(precision, options.tolerance, options.flip_tolerance).flips
        if not allowed or within(none, allowed, confidence):
            continue
        best = bound(none, confidence)
        each = SLICES_OF_UNKNOWN if known is None else max(1, round(count / none.people))
        needed = minimum_patients(allowed, each, confidence)
        if known is None:
            sample = f"{count} images of unknown patients, counted as {none.people} patients"
            more = "Give the patients (docs/PATIENT_IDS.md), or more images"
            takes = f"about {needed * each} such images"
        else:
            noun = {GROUPS: "groups", UNKNOWN: "patients at most"}.get(unit, "patients")
            sample = f"{count} images of {none.people} {noun}"
            more = "Give images of more patients"
            takes = f"about {needed} {noun} with {each} images each"
        shared = f" (95 % confidence over {artifacts} artifacts)" if artifacts > 1 else ""
        raise InputError(
            f"{precision} cannot pass on {sample} ({source}): even with no changed prediction, the upper bound on the "
            f"changed share is {best:.1%}{shared}, allowed {allowed:.1%}; that takes {takes}. {more}: --parity-data "
            f"DIR_OR_PARQUET, --parity-images; leave {precision} out; or allow more, which is recorded: "
            f"--flip-tolerance {_rounded_up(best)}. Nothing was built."
        )


def _rounded_up(share: float) -> str:
    return f"{int(share * 1000 + 1) / 1000:g}"
