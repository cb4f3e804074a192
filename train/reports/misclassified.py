"""Misclassified slices for the evaluation page: the picture, true class, predicted class, probabilities."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from stageproof.train.metrics.classification import Answers

SHOWN = 24
"""Maximum number of pictures."""


@dataclass(frozen=True)
class Misclassified:
    """One misclassified slice."""

    name: str
    """A keyed digest (`train.runs.pseudonyms`), never a file name."""
    true: str
    predicted: str
    probability: float
    """Of the predicted class, in [0, 1]."""
    probability_of_true: float
    pixels: np.ndarray
    """(channels, H, W) uint8, resized for the network."""

    @property
    def png(self) -> bytes:
        """The pixels as a PNG."""
        planes = self.pixels
        image = Image.fromarray(planes[0] if len(planes) == 1 else np.ascontiguousarray(planes.transpose(1, 2, 0)))
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()


def most_confident_errors(answers: Answers) -> np.ndarray:
    """(n,) int64, n <= SHOWN: positions of wrong predictions, those of the highest probability first."""
    wrong = np.flatnonzero(answers.decisions != answers.labels)
    found: np.ndarray = wrong[np.argsort(-answers.confidence[wrong], kind="stable")][:SHOWN]
    return found


def misclassified(answers: Answers, pixels: np.ndarray, names: Sequence[str]) -> list[Misclassified]:
    """The slices that are shown, the most confident first.

    answers: predictions of slices. pixels: (N, channels, H, W) uint8. names: of the slices at `most_confident_errors`,
    as they may be published.
    """
    return [
        Misclassified(
            name,
            answers.classes.names[answers.labels[at]],
            answers.classes.names[answers.decisions[at]],
            float(answers.confidence[at]),
            float(answers.probabilities[at, answers.labels[at]]),
            pixels[at],
        )
        for name, at in zip(names, most_confident_errors(answers), strict=True)
    ]


def summary(shown: Sequence[Misclassified], wrong: int, slices: int) -> str:
    """How many slices are misclassified and which are shown. wrong: number of all misclassified slices."""
    if not wrong:
        return f"None of the {slices} slices is misclassified."
    which = f"The {len(shown)} of highest probability are shown" if len(shown) < wrong else "All are shown"
    size = f" ({shown[0].pixels.shape[2]} × {shown[0].pixels.shape[1]} pixels)" if shown else ""
    return (
        f"{wrong} of {slices} slices are misclassified. {which}, the most confident first, resized as for the "
        f"network{size}. The percentages are the probabilities of the true and of the predicted class."
    )
