"""`python -m train.audit`: reports patients, duplicates and the leakage of a split by slice, before any training."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stageproof.runtime.cli.exit_status import exit_status, report_error
from stageproof.runtime.errors import InputError, StageproofError
from stageproof.runtime.labels import BUILT_IN, named_or_listed
from stageproof.runtime.text.hints import command, program
from stageproof.train.audit.dataset import audit
from stageproof.train.terminal.messages import shown


@shown()
def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 audited, 2 invalid input. Prints the findings and writes them to --out."""
    options = _parser().parse_args(argv)
    try:
        if options.groups is not None and options.patient_pattern is not None:
            raise InputError("--groups and --patient-pattern both give the patients. Use only one of them.")
        classes = None if options.classes is None else named_or_listed(options.classes)
        positive = [part for part in (options.positive or "").split(",") if part.strip()]
        findings = audit(options.data, options.out, options.groups, options.patient_pattern, classes, positive)
    except StageproofError as error:
        report_error(error)
        return 2
    if options.json:
        print(json.dumps(findings))
    else:
        from stageproof.train.audit.text import lines

        print("\n".join(lines(findings)))
        print(f"\nreport {options.out / 'audit.html'}")
        if not findings["given_split"]:
            print(f"Next: {_next(findings, options)}")
    return 0


def _next(findings: dict[str, Any], options: argparse.Namespace) -> str:
    """The command that trains on the audited data with the same patients."""
    arguments: list[object] = ["--data", options.data]
    if options.patient_pattern is not None:
        arguments += ["--patient-pattern", options.patient_pattern]
    elif findings["patients_told_by"] == "pixels":  # identifying them again would take minutes
        arguments += ["--groups", options.out / "groups.csv"]
    elif options.groups is not None:
        arguments += ["--groups", options.groups]
    if options.classes is not None:
        arguments += ["--classes", options.classes]
    if options.positive is not None:
        arguments += ["--positive", options.positive]
    if findings["verdict"] == "unknown":
        arguments += ["--split", "slice"]
    return command("train", *arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("train.audit"),
        description="Report the patients, duplicates and label conflicts of a dataset, and how much a split by slice "
        "leaks between training and test.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder with one subfolder for each class, a folder of such folders (train/, test/), a .parquet file or "
        "a folder of shards, a folder of save_to_disk, a .csv file with the columns path, label and patient, or a .zip "
        "of one of these",
    )
    parser.add_argument(
        "--classes",
        help="classes of the data in clinical order, separated by commas, or a built-in set: "
        f"{', '.join(BUILT_IN)} (default: recognised from the data)",
    )
    parser.add_argument(
        "--positive",
        help="positive classes in the two-way question, separated by commas (default: those of the built-in set, else "
        "all but the first)",
    )
    parser.add_argument("--groups", type=Path, help="CSV file with the columns file and patient (or group)")
    parser.add_argument(
        "--patient-pattern",
        metavar="REGEX",
        help="regular expression with a named group (?P<patient>...) that extracts patient ids from file paths",
    )
    parser.add_argument("--out", type=Path, default=Path("audit"), help="report folder to create (default: audit)")
    parser.add_argument("--json", action="store_true", help="print the findings as one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(exit_status(main, extra="train"))
