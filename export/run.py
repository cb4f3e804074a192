"""The export: builds each format in its own process, checks it in every available backend, and bundles what passes."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stageproof.export.bundle.card import CARD, model_card
from stageproof.export.bundle.existing import present, same_metadata, with_existing
from stageproof.export.bundle.golden import write_golden
from stageproof.export.bundle.guard import FILE as GUARD
from stageproof.export.bundle.guard import rejections, write_guard
from stageproof.export.bundle.rebuild import combinations_of, stale
from stageproof.export.bundle.redaction import Redactor
from stageproof.export.bundle.signing import SIGNATURE, sign
from stageproof.export.bundle.writer import REPORT, adopt, kept_rejections, link, reject, staged
from stageproof.export.data.evaluation_set import EvaluationSet
from stageproof.export.engines.child_process import run_in_child_process
from stageproof.export.engines.latency import timed
from stageproof.export.formats import FORMATS, artifact_files, file_name, variants
from stageproof.export.formats.build import Outcome, produce_in_process
from stageproof.export.hashed_files import write
from stageproof.export.options import Options
from stageproof.export.parity.family import artifacts_by_bound, family
from stageproof.export.parity.reference_answers import gather
from stageproof.export.preconditions import check, check_formats
from stageproof.export.preprocessing import TAKES
from stageproof.export.preprocessing.onnx import assert_bilinear
from stageproof.export.reference.from_bundle import assert_same_logits, calibration_change
from stageproof.export.reference.inferred import assumptions
from stageproof.export.reference.model import Reference, source_of
from stageproof.export.reference.order_check import check_order
from stageproof.export.reference.rebuild_options import assert_agrees
from stageproof.export.reference.source import load_reference
from stageproof.export.sbom.bundle import WRITTEN, with_sbom
from stageproof.runtime import __version__
from stageproof.runtime.artifacts.entries import LOGS
from stageproof.runtime.artifacts.verified_bytes import CODE
from stageproof.runtime.bundle.manifest import FILE, Document, Manifest, artifact_path, read_manifest
from stageproof.runtime.bundle.verify import verified
from stageproof.runtime.system.cpus import available_cpus
from stageproof.runtime.system.work_folders import unmark
from stageproof.train.runs.pseudonyms import public_source
from stageproof.train.terminal.bars import bar

logger = logging.getLogger(__name__)

PACKAGES = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf", "numpy", "pillow")


@dataclass(frozen=True)
class Exported:
    """The result of one export."""

    bundle: Path
    manifest: Manifest
    outcomes: tuple[Outcome, ...]
    comparison: dict[str, Any] = field(default_factory=dict)
    """The comparison images and the reference's predictions on them; JSON-ready."""

    @property
    def whole(self) -> bool:
        """Whether every requested artifact is in the bundle, passed or pending (it needs a GPU to be checked)."""
        return all(outcome.status in ("passed", "pending") for outcome in self.outcomes)


def rebuild(options: Options) -> Exported:
    """The result of rebuilding the artifacts at `options.out` that are incompatible with this machine; no outcomes if
    all are compatible. Raises what `export` raises, and CheckpointError if the bundle's weights are not found.
    """
    manifest = read_manifest(options.out)
    assert_agrees(options, manifest.model, options.out)
    found = stale(options.out, options.threads or available_cpus(), trust_code=options.trust_code)
    for entry in found:
        logger.info(f"{entry.artifact.file}: {entry.reason}")
    if not found:
        return Exported(options.out, manifest, ())
    options = replace(
        options,
        source=source_of(options.out, options.source),
        with_preprocessing=any(entry.artifact.takes == TAKES for entry in found),
        with_softmax=any(entry.gives == "probabilities" for entry in found),
    )
    assert options.source is not None, "source_of returns a path"
    assert_same_logits(load_reference(options), options.out, manifest)
    if since := calibration_change(options.source, manifest.model):
        logger.info(since)
    return export(options, combinations_of(found))


def export(
    options: Options,
    wanted: dict[str, list[str]] | None = None,
    checked: bool = False,
) -> Exported:
    """The result of building, checking and bundling; artifacts that fail go to `rejected/`, not into the manifest.

    wanted: format → precisions; replaces those of the options.
    checked: `export.preconditions.check` has already returned these options and `wanted`.

    Raises what `check` raises, and ParityError if the reference's predictions cannot distinguish a working artifact
    from a broken one. In both cases nothing is written.
    """
    if not checked or wanted is None:
        options, wanted = check(options, wanted)
    reference = load_reference(options)
    logger.info(str(reference.order))
    if what := assumptions(reference.provenance):
        logger.warning(what)
    if options.with_preprocessing:
        assert_bilinear(reference.info.input)
    before = present(options.out)
    options, all_wanted = with_existing(options, reference, before, wanted)
    if all_wanted != wanted:
        check_formats(options, all_wanted)
        wanted = all_wanted
    precisions = list(dict.fromkeys(precision for listed in wanted.values() for precision in listed))
    kept = before.artifacts if before is not None and same_metadata(before, reference) else ()
    files = artifact_files(wanted, options.with_preprocessing)
    shared = family(artifacts_by_bound(options, files, kept), kept, set(files))
    evaluation_set = gather(options, reference, precisions, shared)
    if reference.run is None and options.parity_data is not None and evaluation_set.truth is not None:
        check_order(reference.order, evaluation_set.logits, evaluation_set.truth, evaluation_set.source)
    redactor = Redactor(options, reference, evaluation_set)
    with staged(options.out) as folder:
        guard = _guard(options, reference, before, folder)
        if evaluation_set.samples is not None:
            evaluation_set = replace(evaluation_set, rejected=rejections(folder, evaluation_set.samples), samples=None)
        work = folder / ".work"
        try:
            evaluation_set.save(work)
            outcomes: list[Outcome] = []
            with bar("formats", len(wanted)) as advance:
                for name, precisions in wanted.items():
                    outcomes += _format(options, name, precisions, folder)
                    advance()
        finally:
            shutil.rmtree(work, ignore_errors=True)
        _finish(options, reference, evaluation_set, folder, outcomes, guard, redactor)
        redactor.clean_logs(folder)
        unmark(folder)
        manifest = verified(folder)  # before it replaces the old bundle
        if options.sign:
            sign(folder, options.sign)
        elif (options.out / SIGNATURE).exists():
            logger.warning(f"{options.out} changed, so its signature was removed. Sign it again: --sign KEY")
    if names := redactor.write_names(options.out):
        logger.info(f"{names} maps the digests in the reports to image names; it is not part of the bundle")
    return Exported(options.out, manifest, tuple(outcomes), evaluation_set.facts)


def _guard(options: Options, reference: Reference, before: Manifest | None, folder: Path) -> Document | None:
    """The guard, written into `folder` before any artifact is built, since artifacts record whether there is a guard.

    If the training slices are missing, the existing bundle's guard is kept, provided its weights are the same.
    """
    guard, why_none = write_guard(reference, folder, options.parity_data)
    if guard is None and before and before.guard and before.model.digest == reference.info.digest:
        link(artifact_path(options.out, before.guard), folder / GUARD)
        guard = Document(GUARD, before.guard.sha256)
        logger.info(f"{options.out} keeps its present guard: the training slices to fit a new one are missing")
    elif guard is None:
        logger.warning(why_none)
    return guard


def _format(options: Options, name: str, precisions: Sequence[str], folder: Path) -> list[Outcome]:
    """The outcomes of one format, built in a separate process."""
    arguments = (options, name, precisions, folder, folder / ".work")
    try:
        outcomes: list[Outcome] = run_in_child_process(produce_in_process, arguments, folder / LOGS / f"{name}.log")
    except ChildProcessError as error:
        outcomes = []
        for precision, pixels in variants(name, precisions, options.with_preprocessing):
            file = file_name(FORMATS[name], precision, pixels)
            reason = f"the export of {file} did not finish: {error} (see {LOGS}/{name}.log)"
            outcomes.append(Outcome(name, precision, file, "rejected", reason, "ExportError"))
    return outcomes


def _finish(
    options: Options,
    reference: Reference,
    evaluation_set: EvaluationSet,
    folder: Path,
    outcomes: list[Outcome],
    guard: Document | None,
    redactor: Redactor,
) -> None:
    """Move failed artifacts to `rejected/`, copy the kept ones from the old bundle, time all, write the manifest."""
    facts = {
        "model": reference.info.digest,
        "images": len(evaluation_set.images),
        "source": public_source(evaluation_set.source),
        "comparison": redactor.json(evaluation_set.facts),
    }
    for outcome in outcomes:
        if outcome.artifact is None:
            report = json.dumps({**facts, **redactor.json(_report(outcome))}, indent=2) + "\n"
            reject(folder, outcome.file, report if outcome.status == "rejected" else None)
    good = [outcome for outcome in outcomes if outcome.artifact]
    kept_rejections(options.out, folder, {outcome.file for outcome in outcomes})
    if not good and options.out.exists():
        # No artifact passed: keep the existing bundle's artifacts, whether of this model or another.
        manifest = read_manifest(options.out)
        (folder / GUARD).unlink(missing_ok=True)
        for entry in manifest.files:
            link(artifact_path(options.out, entry), folder / entry.file)
        link(options.out / FILE, folder / FILE)
        return
    replaced = {file for outcome in good for file in outcome.files}
    card = None if options.rebuild else model_card(reference)  # a rebuild keeps the bundle's card: same model
    replaced |= {*WRITTEN, *([] if card is None else [CARD])}
    artifacts, documents, reports = adopt(options.out, reference.info, folder, replaced, reference.order.origin)
    foreign = set() if options.trust_code else {one.file for one in artifacts if one.format in CODE}
    artifacts += [outcome.artifact for outcome in good if outcome.artifact]
    golden = write_golden(reference, folder)
    threads, log = options.threads or available_cpus(), folder / LOGS / "latency.log"
    artifacts = timed(folder, artifacts, golden, reference.info.input, threads, log, foreign)
    by_file = {artifact.file: artifact for artifact in artifacts}
    for outcome in good:
        outcome.artifact = by_file[outcome.file]
    documents += [sidecar for outcome in good for sidecar in outcome.sidecars]
    reports.update({outcome.file: redactor.json(_report(outcome)) for outcome in good})
    text = json.dumps({**facts, "artifacts": reports}, indent=2) + "\n"
    documents.append(Document(REPORT, write(folder / REPORT, text.encode())))
    if card is not None:
        documents.append(Document(CARD, write(folder / CARD, card)))
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    provenance = {**reference.provenance, "stageproof": __version__, "exported": created, "packages": _packages()}
    provenance["comparison"] = redactor.json(evaluation_set.facts)
    manifest = Manifest(
        reference.info,
        tuple(artifacts),
        provenance,
        guard=guard,
        golden=golden,
        documents=tuple(documents),
        labels_from=reference.order.origin,
    )
    manifest = with_sbom(manifest, folder, reference.run, options.out if options.rebuild else None)
    (folder / FILE).write_text(manifest.to_json(), encoding="utf-8")


def _report(outcome: Outcome) -> dict[str, Any]:
    """All measurements of one artifact, JSON-ready."""
    return {
        "format": outcome.format,
        "precision": outcome.precision,
        "status": outcome.status,
        "reason": outcome.reason,
        "error": outcome.error,
        "layers": outcome.found,
        "backends": outcome.reports,
        "notes": outcome.notes,
    }


def _packages() -> dict[str, str]:
    """Versions of the installed packages among `PACKAGES`."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
