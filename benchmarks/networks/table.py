"""`measure`: one network through every format and the parity gate; `row`: its line of the table."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

from stageproof.benchmarks.networks.reference import reference_of, write_slices
from stageproof.export.formats import FORMATS, file_name
from stageproof.export.formats.built import assert_precision
from stageproof.export.options import Options
from stageproof.export.parity.gate import judge
from stageproof.export.parity.reference_answers import gather
from stageproof.export.reference.context import Job
from stageproof.runtime.errors import StageproofError
from stageproof.train.data.phantom import phantom_samples

logger = logging.getLogger(__name__)

COLUMNS = (
    ("onnx", "fp32"),
    ("openvino", "fp32"),
    ("torchscript", "fp32"),
    ("torch-export", "fp32"),
    ("pytorch", "fp32"),
    ("onnx", "int8"),
    ("openvino", "int8"),
)
"""Format and precision of each column."""
COMPARED, BOUND = 256, 0.05
"""Phantom slices of the gate, of 64 people, and the bound on the share of changed predictions in int8."""


@dataclass(frozen=True)
class Cell:
    """One artifact in the backend in which it differs most."""

    changed: int | None
    """Changed predictions; None if it was not built or not run."""
    difference: float | None
    """Largest difference of a probability."""
    megabytes: float | None
    reason: str
    """Why it is not served; "" if it passed the gate."""
    layers: str
    """Layers with weights by type, counted in the file."""

    def text(self) -> str:
        """For a cell of the table."""
        if self.reason:
            return self.reason
        return f"{self.changed}, {self.difference:.0e}, {self.megabytes:.1f} MB"


def measure(
    architecture: str,
    size: int,
    folder: Path,
    columns: tuple[tuple[str, str], ...] = COLUMNS,
    compared: int = COMPARED,
) -> list[Cell]:
    """The cells of a network that is trained for one step and exported into `folder`, which must be empty.

    compared: number of phantom slices of the gate.
    """
    floats, integers = jobs(architecture, size, folder, compared)
    cells = []
    for name, precision in columns:
        cells.append(_cell(integers if precision == "int8" else floats, name, precision))
        logger.info(f"{architecture}, {name} {precision}: {cells[-1].text()}")
    return cells


def jobs(architecture: str, size: int, folder: Path, compared: int = COMPARED) -> tuple[Job, Job]:
    """The contexts of the exports of a network that is trained for one step: in float32, and in int8 with the bound of
    `BOUND`."""
    samples = phantom_samples(patients=16, slices=4, size=64, seed=11)
    reference = reference_of(architecture, size, samples)
    calibration = write_slices(samples, folder / "slices")
    options = Options(source=folder, parity_images=compared, calibration_data=calibration, threads=1)
    (folder / "work").mkdir(parents=True)
    found = gather(options, reference, ("fp32",))
    floats = Job(options, reference, found, folder, folder / "work")
    return floats, replace(floats, options=replace(options, flip_tolerance=BOUND))


def _cell(job: Job, name: str, precision: str) -> Cell:
    module = FORMATS[name]
    path = job.folder / file_name(module, precision)
    try:
        built = module.build(job, precision, path)
        layers = module.inspect(path)
        assert_precision(layers, precision, path.name)
    except StageproofError as error:
        return Cell(None, None, None, f"not built: {error}", "")
    megabytes = sum((job.folder / file).stat().st_size for file in built.files) / 1e6
    verdict = judge(job, path, name, precision, timed=False)
    changed = max((int(str(report["flipped"])) for report in verdict.reports), default=None)
    difference = max((float(str(report["max_probability_difference"])) for report in verdict.reports), default=None)
    return Cell(changed, difference, megabytes, " ".join((*verdict.failures, *verdict.skipped)), str(layers))


def row(architecture: str, size: int, folder: Path) -> tuple[str, list[Cell]]:
    """The network's line of the table, and its cells."""
    begun = time.perf_counter()
    cells = measure(architecture, size, folder)
    texts = [f"`{architecture}`", "yes", *(cell.text() for cell in cells)]
    return f"| {' | '.join(texts)} | <!-- {time.perf_counter() - begun:.0f} s -->", cells


def header() -> list[str]:
    """The two lines above the rows."""
    names = ["network", "train", *(f"{name} {precision}" for name, precision in COLUMNS)]
    return [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
