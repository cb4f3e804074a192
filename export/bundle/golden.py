"""Golden images: synthetic phantoms with the reference's logits, which `Predictor.self_test()` compares on site."""

from __future__ import annotations

from pathlib import Path

from stageproof.export.bundle.writer import GOLDEN
from stageproof.export.data.comparison import phantoms, preprocessed
from stageproof.export.hashed_files import write
from stageproof.export.reference.model import Reference
from stageproof.runtime.bundle.manifest import Golden

COUNT = 8


def write_golden(reference: Reference, folder: Path) -> tuple[Golden, ...]:
    """The golden images, written as PNG files into `folder`/golden: phantoms of the four stages, for any label set.

    Patients' slices are never used, since bundles are distributed.
    """
    samples = phantoms(COUNT)
    logits = reference.logits(preprocessed(samples, reference.info.input))
    golden = []
    for index, row in enumerate(logits):
        file = f"{GOLDEN}/{index:02d}.png"
        digest = write(folder / file, samples.read(index))
        golden.append(Golden(file, digest, tuple(float(value) for value in row)))
    return tuple(golden)
