"""`python -m train.audit`: what a dataset holds and what a slice-wise split of it would hide, before any training."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.command import exit_status
from runtime.errors import DatasetError, NeuroStageError

if TYPE_CHECKING:
    from train.data.loader import Slices, Unreadable
    from train.data.patients import Patients


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 audited, 2 the data cannot be used. The findings go to stdout, and into --out."""
    options = _parser().parse_args(argv)
    try:
        findings = audit(options.data, options.out, options.groups)
    except NeuroStageError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(findings))
    else:
        from train.evaluation.findings import lines

        print("\n".join(lines(findings)))
        print(f"\nreport {options.out / 'audit.html'}")
        if findings["patients"] and not (options.groups or findings["given_split"]):
            print(f"Next: python -m train --data {options.data} --groups {options.out / 'groups.csv'}")
    return 0


def audit(data: Path, out: Path, groups: Path | None = None) -> dict[str, Any]:
    """What was found, JSON-ready; also written to the new folder `out`: `audit.json`, `audit.html` and `groups.csv`.

    data: as `python -m train` takes, or a folder of such folders, as train/ and test/. groups: a file that says who is
    who; without it the pixels are asked, and `groups.csv` is written only when they tell.

    Raises DatasetError for data that cannot be read, or when `out` exists already.
    """
    from train.data.groups import with_groups
    from train.data.loader import thumbnails_only
    from train.data.parts import load_parts
    from train.data.patients import tell_apart
    from train.evaluation.findings import find

    if out.exists():
        raise DatasetError(f"{out} exists already. Give another --out; nothing was written.")
    samples, part = load_parts(data)
    if groups is not None:
        samples = with_groups(samples, groups)
    slices, unreadable = thumbnails_only(samples, max_unreadable=1.0)
    if part is not None:
        left_out = {item.name for item in unreadable}
        part = part[[name not in left_out for name in samples.names]]
    patients = tell_apart(slices.thumbnails)
    findings = find(samples.source, slices, unreadable, patients, part)
    _write(findings, slices, unreadable, patients, out)
    return findings


def _write(
    findings: dict[str, Any], slices: Slices, unreadable: Sequence[Unreadable], patients: Patients, out: Path
) -> None:
    """Write the folder beside its place and move it there, so that it is never half full."""
    import numpy as np

    from train.data.groups import write_groups
    from train.evaluation.audit_report import page

    html = page(findings, slices, patients)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            (staging / "audit.json").write_text(json.dumps(findings, indent=2) + "\n", encoding="utf-8")
            (staging / "audit.html").write_text(html, encoding="utf-8")
            if findings["patients"] is not None:
                groups = patients.groups if slices.groups is None else slices.groups
                # --groups wants a row for every file; nothing is known of these, so each stands alone.
                strangers = groups.max() + 1 + np.arange(len(unreadable))
                names = [*slices.names, *(item.name for item in unreadable)]
                write_groups(staging / "groups.csv", names, np.concatenate([groups, strangers]))
            staging.chmod(0o755)  # mkdtemp makes it private
            staging.rename(out)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise DatasetError(f"{out} cannot be written: {error}. Give another --out.") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.audit",
        description="Find out who is who in a dataset, and what a slice-wise split would hide.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder of class folders, a folder of such folders (train/, test/), or a .parquet file",
    )
    parser.add_argument("--groups", type=Path, help="CSV file with the columns file and group: who is who, if known")
    parser.add_argument("--out", type=Path, default=Path("audit"), help="new folder for the report (default: audit)")
    parser.add_argument("--json", action="store_true", help="print the findings as one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(exit_status(main))
