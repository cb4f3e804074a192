"""`python -m export`: exports the newest run, or a named run or checkpoint, to a bundle."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from textwrap import fill
from typing import TYPE_CHECKING, Any

from stageproof.runtime.cli.exit_status import exit_status, report_error
from stageproof.runtime.cli.extras import require
from stageproof.runtime.cli.sources import local_source
from stageproof.runtime.errors import StageproofError
from stageproof.runtime.labels import ORIGINS
from stageproof.runtime.text.hints import command
from stageproof.train.terminal.messages import shown

if TYPE_CHECKING:
    from pathlib import Path

    from stageproof.export.formats.build import Outcome
    from stageproof.export.options import Options
    from stageproof.export.run import Exported


logger = logging.getLogger("stageproof.export")  # __name__ is __main__ under python -m


@shown()
def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 every requested artifact is in the bundle, 1 a check failed, 2 invalid input."""
    try:
        require("export", "tyro", "torch", "torchvision", "safetensors", "scipy")
    except StageproofError as error:
        return report_error(error)
    from stageproof.export.options import parse

    try:
        options = parse(argv)
        source = local_source(options.source, options.remote, "run", "RUN")
        options = replace(options, source=source, remote=None)
        exported = _rebuilt(options) if options.rebuild else _exported(options)
    except StageproofError as error:
        return report_error(error)
    for outcome in exported.outcomes:
        for line in outcome.notes:
            logger.info(line)
        if outcome.reason:
            logger.info(f"{outcome.error}: {outcome.reason}" if outcome.error else outcome.reason)
    if options.json:
        print(json.dumps(_as_json(exported), indent=2))
    else:
        _print(exported, options)
    return 0 if exported.whole else 1


def _exported(options: Options) -> Exported:
    from stageproof.export.preconditions import check

    options, wanted = check(options)
    if "torchscript" in wanted:
        logger.warning(
            "TorchScript is deprecated since torch 2.9. Use --to onnx unless your program needs TorchScript."
        )
    from stageproof.export.run import export  # imports torch

    return export(options, wanted, checked=True)


def _rebuilt(options: Options) -> Exported:
    from stageproof.export.preconditions import check_numbers
    from stageproof.export.reference.rebuild_options import assert_agrees
    from stageproof.runtime.bundle.manifest import read_manifest
    from stageproof.train.foreign.class_order import given_labels

    check_numbers(options)
    given_labels(options.labels, options.classes, options.positive)
    assert_agrees(options, read_manifest(options.out).model, options.out)
    from stageproof.export.run import rebuild  # imports torch

    return rebuild(options)


def _as_json(exported: Exported) -> dict[str, Any]:
    from dataclasses import asdict

    new = [asdict(outcome.artifact) for outcome in exported.outcomes if outcome.artifact]
    names = ("format", "precision", "file", "status", "reason", "error")
    rest = [{name: getattr(outcome, name) for name in names} for outcome in exported.outcomes]
    manifest = exported.manifest
    order = {"labels": list(manifest.model.labels), "labels_from": manifest.labels_from}
    found = {"bundle": str(exported.bundle), **order, "artifacts": new, "outcomes": rest}
    inferred = {name: manifest.provenance[name] for name in ("inferred",) if name in manifest.provenance}
    return {**found, **inferred, "comparison": exported.comparison}


def _print(exported: Exported, options: Options) -> None:
    if options.rebuild and not exported.outcomes:
        print(f"{exported.bundle}: nothing to rebuild")
        return
    from stageproof.export.reference.inferred import table

    model = exported.manifest.model
    spec = model.input
    print(f"bundle {exported.bundle}")
    print(f"{model.architecture}, {spec.channels} × {spec.height} × {spec.width}, weights {model.digest[:12]}…")
    print(f"classes {', '.join(model.labels)}")
    print(f"        {ORIGINS[exported.manifest.labels_from]}")
    for line in table(exported.manifest.provenance):
        print(line)
    print(f"{'file':<23}{'built':<5}{'MB':>6} {'backend':<13}{'changed':>9}{'bound':>7}{'Δp':>8}{'ms':>9}")
    for outcome in exported.outcomes:
        _print_outcome(outcome, exported.bundle)
    measured = [report for outcome in exported.outcomes for report in outcome.reports]
    if measured:
        _print_wrapped(f"compared with eager float32 on {measured[0]['images']} slices of {measured[0]['source']}")
        _print_comparison(exported.comparison)
        print(_counted(measured[0]))
        print("Δp: largest change of a probability. ms: per image on this machine, engine only.")
    if any(outcome.status == "rejected" for outcome in exported.outcomes):
        print(f"rejected artifacts and their reports: {exported.bundle / 'rejected'}")
    if any(artifact.checks for artifact in exported.manifest.artifacts):
        named = () if str(exported.bundle) == "bundle" else (exported.bundle,)
        print(f"\nNext: {command('runtime', '--bundle', exported.bundle, 'scan.jpg')}")
        print(f"      {command('benchmarks', *named)}")


def _counted(report: dict[str, Any]) -> str:
    """Explanation of the columns `changed` and `bound`, in two lines: number of patients and confidence level."""
    whose = "of unknown patients" if report["people"] is None else f"of {report['people']} {report['unit']}"
    several = f" over {report['artifacts']} artifacts together" if report["artifacts"] > 1 else ""
    return (
        f"changed: changed predictions, abstentions included, {whose}.\n"
        f"bound: upper bound on their share, clustered by patient; 95 % confidence{several}."
    )


def _print_comparison(facts: dict[str, Any]) -> None:
    """Print the reference's predictions per class on the comparison images, and the limits of the comparison."""
    counts = ", ".join(f"{label} {count}" for label, count in facts.get("answers", {}).items())
    lines = [f"reference predictions: {counts}", *facts.get("remarks", ())]
    for line in (*lines, *([facts["warning"]] if "warning" in facts else [])):
        _print_wrapped(line)


def _print_wrapped(line: str) -> None:
    print(fill(line, 79, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))


def _print_outcome(outcome: Outcome, bundle: Path) -> None:
    """Print one line for each backend that ran the file, or one line with its status if none did."""
    artifact = outcome.artifact
    precision = next(iter(outcome.found), outcome.precision)
    # All files of the artifact: an .xml needs its .bin.
    size = f"{sum((bundle / file).stat().st_size for file in outcome.files) / 1e6:.1f}" if artifact else ""
    start = f"{outcome.file:<23}{precision:<5}{size:>6} "
    latency = {check.backend: f"{check.latency_ms:.1f}" for check in artifact.checks} if artifact else {}
    for report in outcome.reports:
        changed = f"{report['changed']}/{report['images']}"
        bound = max(float(str(report[name])) for name in ("flip_bound", "changed_bound"))
        end = latency.get(str(report["backend"]), "rejected" if outcome.status == "rejected" else "")
        print(
            f"{start}{report['backend']:<13}{changed:>9}{bound:>7.1%}"
            f"{report['max_probability_difference']:>8.1e}{end:>9}"
        )
    if not outcome.reports:
        print(f"{start}{outcome.status}")


if __name__ == "__main__":
    sys.exit(exit_status(main, extra="export"))
