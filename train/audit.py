"""`python -m train.audit`: what a dataset holds and what a slice-wise split of it would hide, before any training."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.errors import DatasetError, NeuroStageError
from runtime.labels import LABELS

if TYPE_CHECKING:
    from train.data.loader import Slices, Unreadable
    from train.data.patients import Patients


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 audited, 2 the data cannot be used. The findings go to stdout, and into --out."""
    options = _parser().parse_args(argv)
    try:
        findings = audit(options.data, options.out)
    except NeuroStageError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(findings))
    else:
        print("\n".join(_lines(findings)))
        print(f"\nreport {options.out / 'audit.html'}")
    return 0


def audit(data: Path, out: Path) -> dict[str, Any]:
    """What was found, JSON-ready; also written to `audit.json` and `audit.html` in the new folder `out`.

    Raises DatasetError for data that cannot be read, or when `out` exists already.
    """
    from runtime.preprocess import InputSpec
    from train.data.loader import safe_loader
    from train.data.patients import THUMBNAIL, tell_apart
    from train.data.sources import load_samples

    if out.exists():
        raise DatasetError(f"{out} exists already. Give another --out; nothing was written.")
    samples = load_samples(data)
    slices, unreadable = safe_loader(samples, InputSpec.imagenet(THUMBNAIL), max_unreadable=1.0)
    patients = tell_apart(slices.thumbnails)
    findings = _findings(samples.source, slices, unreadable, patients)
    _write(findings, slices, patients, out)
    return findings


def _findings(source: str, slices: Slices, unreadable: Sequence[Unreadable], patients: Patients) -> dict[str, Any]:
    import numpy as np

    from train.evaluation.leakage import nearest_neighbour, shared_patients

    groups, labels = patients.groups, slices.labels
    sizes = np.bincount(groups)
    conflicts = [int(group) for group in range(len(sizes)) if len(set(labels[groups == group])) > 1]
    first = np.unique(groups, return_index=True)[1]
    neighbour = nearest_neighbour(slices.thumbnails, labels, groups)
    return {
        "source": source,
        "slices": len(slices),
        "slices_by_class": _by_class(labels),
        "unreadable": [{"name": item.name, "reason": item.reason} for item in unreadable],
        "identical_slices": len(slices) - len(np.unique(slices.thumbnails.reshape(len(slices), -1), axis=0)),
        "patients_found": patients.found,
        "likeness": patients.likeness(),
        "patients": len(sizes) if patients.found else None,
        "patients_by_class": _by_class(labels[first]) if patients.found else None,
        "slices_a_patient": [int(sizes.min()), float(np.median(sizes)), int(sizes.max())] if patients.found else None,
        "patients_with_two_labels": len(conflicts) if patients.found else None,
        "shared_by_random_split": shared_patients(groups) if patients.found else None,
        "largest_class": float(np.bincount(labels).max() / len(labels)),
        "nearest_neighbour_any_slice": neighbour.any_slice,
        "nearest_neighbour_other_patients": neighbour.other_patients if patients.found else None,
    }


def _by_class(labels: Any) -> dict[str, int]:
    return {label: int((labels == index).sum()) for index, label in enumerate(LABELS)}


def _lines(findings: dict[str, Any]) -> list[str]:
    """The findings for a terminal of 80 columns."""
    people = findings["patients_by_class"] or dict.fromkeys(LABELS, "?")
    lines = [
        f"{'':<18}{'slices':>8}{'patients':>10}",
        *(f"{name:<18}{count:>8}{people[name]:>10}" for name, count in findings["slices_by_class"].items()),
        f"{'all':<18}{findings['slices']:>8}{findings['patients'] or '?':>10}",
        "",
        f"unreadable  {len(findings['unreadable'])} files",
        f"identical   {findings['identical_slices']} slices repeat another one",
    ]
    largest = f"            always answering the largest class: {findings['largest_class']:.1%}"
    if not findings["patients_found"]:
        return [
            *lines,
            "patients    UNKNOWN: the pixels do not tell them apart clearly. No split of this",
            "            data can be shown to keep one person on one side.",
            f"nearest     {findings['nearest_neighbour_any_slice']:.1%} right by copying the most alike other slice;",
            largest,
        ]
    least, middle, most = findings["slices_a_patient"]
    span = f"{most}" if least == most else f"{least} to {most} (median {middle:g})"
    _, below, above, strength = findings["likeness"].values()
    copied, other = findings["nearest_neighbour_any_slice"], findings["nearest_neighbour_other_patients"]
    return [
        *lines,
        f"patients    have {span} slices each; told apart by a gap in likeness from",
        f"            {below:.4f} to {above:.4f}, {strength:.0f} times the usual spacing",
        f"labels      {findings['patients_with_two_labels']} patients have slices of two classes",
        f"LEAKAGE     {findings['shared_by_random_split']:.0%} of the test slices of a random split have their own",
        "            patient in training",
        f"nearest     {copied:.1%} right by copying the most alike slice, without learning;",
        f"            {other:.1%} when that slice must be another patient's;",
        largest,
    ]


def _write(findings: dict[str, Any], slices: Slices, patients: Patients, out: Path) -> None:
    from train.evaluation.audit_report import page

    html = page(findings, _lines(findings), slices.thumbnails, patients)
    try:
        out.mkdir(parents=True)
        (out / "audit.json").write_text(json.dumps(findings, indent=2) + "\n", encoding="utf-8")
        (out / "audit.html").write_text(html, encoding="utf-8")
    except OSError as error:
        raise DatasetError(f"{out} cannot be written: {error}. Give another --out.") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.audit",
        description="Find out who is who in a dataset, and what a slice-wise split would hide.",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of class folders, or a .parquet file")
    parser.add_argument("--out", type=Path, default=Path("audit"), help="new folder for the report (default: audit)")
    parser.add_argument("--json", action="store_true", help="print the findings as one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
