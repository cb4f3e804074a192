"""Slices that were predicted wrong, as a part of the evaluation page: the picture, true, predicted, probability."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from stageproof.runtime.labels import LABELS
from stageproof.runtime.text.escapes import markup as escape
from stageproof.train.metrics.classification import Answers
from stageproof.train.reports.formatting import number
from stageproof.train.reports.html import picture

SHOWN = 24
"""Pictures at most."""
STYLE = """
.slices { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: 1rem; margin: 1rem 0 }
.slices figure { margin: 0; font-size: 13px; line-height: 1.35; overflow-wrap: anywhere }
.slices .picture img { width: 100%; margin: 0 0 .3rem; image-rendering: pixelated }
"""


@dataclass(frozen=True)
class Misclassified:
    """One slice that was predicted wrong."""

    name: str
    """A keyed digest (`train.runs.pseudonyms`), never a file name."""
    true: str
    predicted: str
    probability: float
    """Of the predicted class, in [0, 1]."""
    probability_of_true: float
    pixels: np.ndarray
    """(channels, H, W) uint8, as the network's size has it."""


def most_confident_errors(answers: Answers) -> np.ndarray:
    """(n,) int64, n <= SHOWN: positions of wrong predictions, those of the highest probability first."""
    wrong = np.flatnonzero(answers.decisions != answers.labels)
    found: np.ndarray = wrong[np.argsort(-answers.confidence[wrong], kind="stable")][:SHOWN]
    return found


def misclassified(answers: Answers, pixels: np.ndarray, names: Sequence[str]) -> list[Misclassified]:
    """Those that are shown, the most confident first.

    answers: of slices. pixels: (N, channels, H, W) uint8. names: of the slices at `most_confident_errors`, as they may
    be published.
    """
    return [
        Misclassified(
            name,
            LABELS[answers.labels[at]],
            LABELS[answers.decisions[at]],
            float(answers.confidence[at]),
            float(answers.probabilities[at, answers.labels[at]]),
            pixels[at],
        )
        for name, at in zip(names, most_confident_errors(answers), strict=True)
    ]


def section(shown: Sequence[Misclassified], wrong: int, slices: int) -> str:
    """HTML. wrong: how many of all slices were predicted wrong."""
    heading = "<h2>Misclassified slices</h2>"
    if not wrong:
        return f"{heading}<p>None of the {slices} slices was predicted wrong.</p>"
    which = f"The {len(shown)} of highest probability are shown" if len(shown) < wrong else "All are shown"
    size = f"{shown[0].pixels.shape[2]} × {shown[0].pixels.shape[1]} pixels" if shown else ""
    figures = "".join(
        f"<figure>{picture(_png(one.pixels), f'slice {one.name}')}<figcaption>"
        f"true: {_class(one.true, one.probability_of_true)}predicted: {_class(one.predicted, one.probability)}"
        f"{escape(one.name)}</figcaption></figure>"
        for one in shown
    )
    return (
        f"{heading}<p>{wrong} of {slices} slices were predicted wrong. {which}, the most confident first, as the "
        f"network gets them ({size}). The shares are the probabilities of the true and of the predicted class.</p>"
        f'<div class="slices">{figures}</div><p class="note">Names are keyed digests; names.json, beside this page, '
        "says which files they are and must not be passed on.</p>"
    )


def _class(label: str, probability: float) -> str:
    share = number(probability, True).replace(" ", "\N{NO-BREAK SPACE}")
    return f"{share}<br><b>{escape(label)}</b><br>"


def _png(pixels: np.ndarray) -> bytes:
    image = Image.fromarray(pixels[0] if pixels.shape[0] == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
