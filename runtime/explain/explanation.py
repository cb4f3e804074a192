"""`explain_prediction`: a prediction and its Grad-CAM heat map as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stageproof.runtime.bundle.manifest import FILE as MANIFEST
from stageproof.runtime.bundle.manifest import read_manifest
from stageproof.runtime.errors import BackendUnavailable, InputError
from stageproof.runtime.explain.background import head, share_outside
from stageproof.runtime.explain.gradcam import grad_cam, why_unavailable
from stageproof.runtime.explain.overlay import draw_overlay
from stageproof.runtime.images.reader import Source, read
from stageproof.runtime.prediction import Prediction
from stageproof.runtime.predictor import Predictor
from stageproof.runtime.preprocess import preprocess
from stageproof.runtime.text.hints import command

BACKEND, PRECISION = "torch-export", "fp32"
"""The only artifact with the reference's weights and gradients."""


def explain_prediction(
    bundle: Path, source: Source, label: str | None = None, *, trust_code: bool = False
) -> tuple[Prediction, bytes | None]:
    """The prediction of the bundle's float32 `.pt2`, and a PNG with the slice and its Grad-CAM overlay side by side.

    source: as for `Predictor.predict`.
    label: the class to explain, in any common spelling; None takes the most probable one.
    trust_code: as for `Predictor`; must be True, because a `.pt2` contains code.

    The PNG is None if the guard rejected the image. Raises the errors of `Predictor`, and InputError for a bundle
    without a float32 `.pt2` or an unknown label.
    """
    if reason := why_unavailable():
        raise BackendUnavailable(f"Grad-CAM {reason}.")
    _needs_pt2(bundle)
    label = None if label is None else _class_called(label, bundle)
    predictor = Predictor(bundle, backend=BACKEND, precision=PRECISION, trust_code=trust_code)
    labels = predictor.model.labels
    picture = read(source, predictor._max_pixels, predictor._pool)
    prediction = predictor.predict(picture)
    if prediction.status == "rejected":
        return prediction, None
    target = label or max(prediction.probabilities, key=prediction.probabilities.__getitem__)
    pixels = preprocess(picture.image, predictor.model.input)
    assert predictor._serving.reread is not None, "a bundle's artifact"
    cells, layer = grad_cam(
        predictor._serving.reread().content, predictor.model.architecture, pixels, labels.index(target)
    )
    inside = head(picture.image)
    outside = share_outside(cells, inside)
    return prediction, draw_overlay(
        picture.image, cells, inside, _caption(predictor, prediction, target, cells, layer, outside)
    )


def _caption(
    predictor: Predictor, prediction: Prediction, target: str, cells: np.ndarray, layer: str, outside: float
) -> list[str]:
    """The lines below the picture; the first is the one that must not be missed."""
    decided = prediction.label or f"abstained: {prediction.reason}"
    size = f"{cells.shape[0]} by {cells.shape[1]} cells of {layer}"  # the font has no ×
    what = f"what raised it, in {size}" if cells.any() else f"nothing in the {size} raised it"
    return [
        "RESEARCH USE ONLY. Not a diagnosis.",
        f"Model: {decided}. Right: Grad-CAM of {target} ({prediction.probabilities[target]:.1%}), {what}.",
        f"Colour: value of a cell, relative to the largest one (1). The background is not coloured; {outside:.0%} of "
        "the map lies there.",
        f"{predictor.artifact.name}, weights {predictor.model.digest[:16]}…",
    ]


def _class_called(label: str, bundle: Path) -> str:
    """The class of the bundle's model that `label` is a spelling of. Raises InputError if there is none."""
    classes = read_manifest(bundle).model.classes
    found = classes.find(label)
    if found is None:
        raise InputError(f"label is {label!r}, expected one of {', '.join(classes.names)}, in any common spelling.")
    return found


def _needs_pt2(bundle: Path) -> None:
    if not (bundle / MANIFEST).is_file():
        return  # Predictor raises the error
    checks = [
        check for entry in read_manifest(bundle).artifacts if entry.precision == PRECISION for check in entry.checks
    ]
    if not any(check.backend == BACKEND for check in checks):
        raise InputError(
            f"{bundle} has no float32 .pt2, which Grad-CAM requires for gradients. Add it, from the same run: "
            f"{command('export', 'RUN', '--to', BACKEND, '--out', bundle)}"
        )
