"""From reference to bundle: build each format apart, measure it in every backend here, keep what holds."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from export.bundle import REPORT, adopt, kept_rejections, link, reject, staged
from export.files import write
from export.formats import FORMATS, combinations, file_name
from export.golden import write_golden
from export.guarding import write_guard
from export.job import Evidence, gather, load_reference, settled
from export.options import Options
from export.processes import in_own_process
from export.produce import Outcome, produce_apart
from export.reference import Reference
from runtime import __version__
from runtime.manifest import FILE, Document, Manifest, artifact_path, read_manifest

CARD = "MODEL_CARD.md"
LOGS = "logs"
PACKAGES = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf", "numpy", "pillow")


@dataclass(frozen=True)
class Exported:
    """What one export gave."""

    bundle: Path
    manifest: Manifest
    outcomes: tuple[Outcome, ...]

    @property
    def whole(self) -> bool:
        """Whether all that was asked for is in the bundle, apart from what cannot be built here by its nature."""
        return all(outcome.status in ("passed", "pending") for outcome in self.outcomes)


def export(options: Options, say: Callable[[str], None] = lambda text: None) -> Exported:
    """Build, check and bundle; what does not hold lies in `rejected/` and is not in the manifest.

    say: takes a line of progress.

    Raises InputError, ExportError, BundleError, CheckpointError or DatasetError, and changes nothing, when there is
    nothing to begin with.
    """
    wanted = combinations(options.to, options.precision)
    options = settled(options)
    reference = load_reference(options)
    with staged(options.out) as folder:
        work = folder / ".work"
        try:
            say("asking eager float32 about the images to compare on")
            evidence = gather(options, reference)
            evidence.save(work)
            outcomes: list[Outcome] = []
            for name, precisions in wanted.items():
                outcomes += _format(options, name, precisions, folder, say)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        manifest = _finish(options, reference, evidence, folder, outcomes, say)
    return Exported(options.out, manifest, tuple(outcomes))


def _format(
    options: Options, name: str, precisions: Sequence[str], folder: Path, say: Callable[[str], None]
) -> list[Outcome]:
    """The outcomes of one format, made in a process of its own."""
    arguments = (options, name, precisions, folder, folder / ".work")
    try:
        outcomes: list[Outcome] = in_own_process(produce_apart, arguments, folder / LOGS / f"{name}.log", say)
    except ChildProcessError as error:
        files = [file_name(FORMATS[name], precision) for precision in precisions]
        outcomes = [
            Outcome(name, precision, file, "rejected", f"{file} was not finished: {error} (see {LOGS}/{name}.log)")
            for precision, file in zip(precisions, files, strict=True)
        ]
    return outcomes


def _finish(
    options: Options,
    reference: Reference,
    evidence: Evidence,
    folder: Path,
    outcomes: list[Outcome],
    say: Callable[[str], None],
) -> Manifest:
    """Sort what was built into served and rejected, take over what stays, and write the manifest."""
    facts = {"model": reference.info.digest, "images": len(evidence.images), "source": evidence.source}
    for outcome in outcomes:
        if outcome.artifact is None:
            report = json.dumps({**facts, **_report(outcome)}, indent=2) + "\n"
            reject(folder, outcome.file, report if outcome.status == "rejected" else None)
    good = [outcome for outcome in outcomes if outcome.artifact]
    kept_rejections(options.out, folder, {outcome.file for outcome in outcomes})
    if not good and options.out.exists():
        # Nothing new to serve: whatever the present bundle serves, of this model or another, it serves on.
        manifest = read_manifest(options.out)
        for entry in manifest.files:
            link(artifact_path(options.out, entry), folder / entry.file)
        link(options.out / FILE, folder / FILE)
        return manifest
    replaced = {file for outcome in good for file in outcome.files}
    artifacts, documents, reports = adopt(options.out, reference.info.digest, folder, replaced)
    artifacts += [outcome.artifact for outcome in good if outcome.artifact]
    documents += [sidecar for outcome in good for sidecar in outcome.sidecars]
    reports.update({outcome.file: _report(outcome) for outcome in good})
    text = json.dumps({**facts, "artifacts": reports}, indent=2) + "\n"
    documents.append(Document(REPORT, write(folder / REPORT, text.encode())))
    card = reference.run / CARD if reference.run else None
    if card and card.is_file():
        documents.append(Document(CARD, write(folder / CARD, card.read_bytes())))
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    provenance = {**reference.provenance, "neurostage": __version__, "exported": created, "packages": _packages()}
    guard, why_none = write_guard(reference, folder)
    if guard is None:
        say(why_none)
    manifest = Manifest(
        reference.info,
        tuple(artifacts),
        provenance,
        guard=guard,
        golden=write_golden(reference, folder),
        documents=tuple(documents),
    )
    (folder / FILE).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def _report(outcome: Outcome) -> dict[str, Any]:
    """JSON-ready: all that was measured."""
    return {
        "format": outcome.format,
        "precision": outcome.precision,
        "status": outcome.status,
        "reason": outcome.reason,
        "layers": outcome.found,
        "backends": outcome.reports,
        "notes": outcome.notes,
    }


def _packages() -> dict[str, str]:
    """What was installed at the export, of all that had a part in it."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
