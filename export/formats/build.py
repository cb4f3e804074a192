"""Builds one format in each requested precision, reads the precision of the built file, and runs the parity gate."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stageproof.export.data.evaluation_set import EvaluationSet
from stageproof.export.formats import FORMATS, file_name, missing_package, variants
from stageproof.export.formats.built import assert_precision
from stageproof.export.hashed_files import assert_written
from stageproof.export.options import Options
from stageproof.export.parity.gate import Verdict, judge
from stageproof.export.reference.context import Job
from stageproof.export.reference.source import load_reference
from stageproof.runtime.bundle.manifest import Artifact, Document
from stageproof.runtime.errors import BackendUnavailable, DatasetError, ExportError, ParityError
from stageproof.runtime.serialization.digests import sha256_file

logger = logging.getLogger(__name__)


@dataclass
class Outcome:
    """The result of building and checking one format in one precision."""

    format: str
    precision: str
    file: str
    status: str
    """``passed``; ``pending``: built, but it needs a GPU that is not here; ``rejected``: it failed the parity gate or
    has another precision than requested; ``missing``: it could not be built, or no backend here could check it."""
    reason: str = ""
    error: str = ""
    """Exception type of `reason`, such as ``ParityError``."""
    artifact: Artifact | None = None
    """Set if `status` is passed or pending."""
    sidecars: tuple[Document, ...] = ()
    """Additional files that the artifact needs."""
    reports: list[dict[str, object]] = field(default_factory=list)
    """The gate's measurements, one for each backend."""
    notes: list[str] = field(default_factory=list)
    """Backends that could not run the artifact, with the reason."""
    found: dict[str, int] = field(default_factory=dict)
    """Number of layers by precision, counted in the file."""

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all files of the artifact."""
        return (self.file, *(document.file for document in self.sidecars))


def produce_in_process(
    options: Options, name: str, precisions: Sequence[str], folder: Path, work: Path
) -> list[Outcome]:
    """As `produce`, in a separate process: the job is created from the files that the first process wrote to `work`."""
    import torch

    job = Job(options, load_reference(options), EvaluationSet.load(work), folder, work)
    torch.set_num_threads(job.threads)
    return produce(job, name, precisions)


def produce(job: Job, name: str, precisions: Sequence[str]) -> list[Outcome]:
    """The outcomes of format `name`, one for each artifact; files are written to the job's folder."""
    artifacts = variants(name, precisions, job.options.with_preprocessing)
    return [_outcome(job, name, precision, pixels) for precision, pixels in artifacts]


def _outcome(job: Job, name: str, precision: str, pixels: bool) -> Outcome:
    module = FORMATS[name]
    file = file_name(module, precision, pixels)
    outcome = Outcome(name, precision, file, "missing")
    if reason := missing_package(module):
        outcome.reason, outcome.error = f"{file} was not built: {name} {reason}", "DependencyError"
        return outcome
    logger.info(f"{file}: building")
    path = job.folder / file
    try:
        built = module.build(job, precision, path, pixels=True) if pixels else module.build(job, precision, path)
        for written, digest in built.files.items():
            assert_written(job.folder / written, digest)
        found = built.found or module.inspect(path)
        outcome.found = found.layers
        assert_precision(found, precision, file)
        _judge(job, outcome, path, module.NEEDS_GPU, pixels, built.quantisation)
        for written, digest in built.files.items():
            assert_written(job.folder / written, digest)  # again: the measured file must be the one that is kept
    except (ExportError, ParityError) as error:
        outcome.status, outcome.reason, outcome.error = "rejected", str(error), type(error).__name__
        return outcome
    except (BackendUnavailable, DatasetError) as error:
        outcome.reason, outcome.error = f"{file} was not built: {error}", type(error).__name__
        return outcome
    except OSError as error:
        outcome.reason, outcome.error = f"{file} could not be written: {error}", "ExportError"
        return outcome
    if outcome.artifact:
        others = list(built.files)[1:]
        outcome.artifact = replace(outcome.artifact, requires=built.requires, takes=built.takes)
        outcome.sidecars = tuple(Document(other, built.files[other]) for other in others)
    return outcome


def _judge(job: Job, outcome: Outcome, path: Path, needs_gpu: bool, pixels: bool, facts: dict[str, Any] | None) -> None:
    """Run the parity gate on the file and store the result in `outcome`. facts: of its quantisation."""
    logger.info(f"{path.name}: comparing {len(job.evaluation_set.images)} images")
    verdict: Verdict = judge(job, path, outcome.format, outcome.precision, pixels=pixels)
    if facts:
        verdict.reports = [{**report, "quantisation": facts} for report in verdict.reports]
        verdict.checks = [replace(check, parity={**check.parity, "quantisation": facts}) for check in verdict.checks]
    outcome.notes, outcome.reports = verdict.skipped, verdict.reports
    if verdict.failures:
        outcome.status, outcome.reason = "rejected", " ".join(f"{failure}." for failure in verdict.failures)
        outcome.error = verdict.errors[0]
        return
    if not verdict.checks and not needs_gpu:
        why = ". ".join(verdict.skipped) or f"no backend runs {outcome.format}"
        outcome.reason = f"{path.name} was not added, since no backend here can check it. {why}."
        outcome.error = "BackendUnavailable"
        return
    outcome.status = "passed" if verdict.checks else "pending"
    if not verdict.checks:
        outcome.reason = f"{path.name} needs a GPU to be checked, and there is none here: built, but not served."
    checks = tuple(verdict.checks)
    outcome.artifact = Artifact(
        outcome.format, outcome.precision, path.name, sha256_file(path), path.stat().st_size, checks
    )
