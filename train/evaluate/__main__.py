"""`python -m train.evaluate`: evaluates and calibrates a run on held-out patients, and writes its cards."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

from stageproof.runtime.cli.exit_status import exit_status, report_error, require_or_exit
from stageproof.runtime.cli.sources import local_source

if __name__ == "__main__":
    packages = ("tyro", "torch", "torchvision", "safetensors", "scipy", "matplotlib", "jinja2", "rich")
    require_or_exit("train", *packages, "huggingface_hub")

import tyro

from stageproof.runtime.errors import InputError, StageproofError
from stageproof.runtime.text.hints import command, program
from stageproof.train.config.preconditions import check_evaluation
from stageproof.train.data.identity.patient_pattern import compile_pattern
from stageproof.train.runs.finding import chosen, evaluation_folder
from stageproof.train.runs.record import read_record
from stageproof.train.terminal.messages import shown

if TYPE_CHECKING:
    from stageproof.train.evaluate.evaluation import Evaluated


@dataclass(frozen=True)
class Options:
    """Command-line options of the evaluation."""

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = None
    """Run directory. If omitted: the run that finished last."""
    remote: Annotated[str | None, tyro.conf.arg(name="from", metavar="SOURCE")] = None
    """In place of RUN: a path, or hf:OWNER/NAME[@REVISION], a run in a repository of the Hugging Face Hub.
    It is downloaded and copied to hub/OWNER--NAME-COMMIT."""
    data: Path | None = None
    """Other data to evaluate on, as for training; slices of patients in the data of the run are left out.
    The report compares both populations: classes, image sizes, age, sex and the scores of a guard.
    If omitted: the slices that the run held out."""
    groups: Path | None = None
    """CSV file with the columns file and patient (or group) for the evaluated slices.
    If omitted: the patients of the run; with --data, ids found in the data, else patients from image similarity."""
    patient_pattern: str | None = None
    """Regular expression with a named group (?P<patient>…) that extracts patient ids from the paths of these slices."""
    target_risk: float | None = None
    """Maximum error rate of the predictions that are given, such as 0.1. The model abstains below two thresholds.
    These are certified with 95 % confidence, one for slices and one for studies.
    0.1 needs 46 held-out patients (studies alone: 39), 0.2 needs 26 (24).
    If only one threshold can be certified, the model always abstains for the other kind; if none can, nothing is
    written. If omitted: the model never abstains."""
    out: Path | None = None
    """Folder for the report. If omitted: RUN/evaluation. An earlier evaluation there is replaced."""
    resamples: int = 2000
    """Ignored: intervals need no resampling. Accepted for commands written for version 0.1."""
    seed: int = 0
    """Random seed of the permutation test, and of the halves for cross-fitting the calibration."""
    max_unreadable: float = 0.05
    """Maximum share of unreadable files."""
    json: bool = False
    """Print the metrics as one JSON object."""


def parse(argv: Sequence[str] | None = None) -> Options:
    """The options on the command line. Exits with status 2 on a usage error. Raises InputError for invalid values."""
    options = tyro.cli(
        Options,
        args=argv,
        prog=program("train.evaluate"),
        description="Evaluate a run on unseen patients, calibrate it, and write its cards.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    rules = [
        ("--target-risk", options.target_risk, options.target_risk is None or 0 < options.target_risk < 1, "in (0, 1)"),
        ("--resamples", options.resamples, options.resamples >= 200, "200 or more"),
        ("--seed", options.seed, options.seed >= 0, "0 or more"),
        ("--max-unreadable", options.max_unreadable, 0 <= options.max_unreadable <= 1, "between 0 and 1"),
    ]
    if options.patient_pattern is not None:
        if options.groups is not None:
            raise InputError("--groups and --patient-pattern both give the patients. Use only one of them.")
        compile_pattern(options.patient_pattern)
    for option, value, holds, expected in rules:
        if not holds:
            raise InputError(f"{option} is {value:g}, expected {expected}.")
    return options


@shown()
def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 evaluated; 1 a control failed, or no threshold was certified; 2 invalid input."""
    try:
        options = parse(argv)
        run = chosen(local_source(options.run, options.remote, "run", "RUN", copy=True))
        out = options.out or evaluation_folder(run, options.data)
        check_evaluation(run, read_record(run), options.data, options.groups, out)
        from stageproof.train.evaluate.evaluation import evaluate
        from stageproof.train.evaluate.warning_messages import fails

        found = evaluate(
            run,
            options.data,
            options.groups,
            patient_pattern=options.patient_pattern,
            out=out,
            target_risk=options.target_risk,
            seed=options.seed,
            max_unreadable=options.max_unreadable,
        )
    except StageproofError as error:
        return report_error(error)
    if options.json:
        print(json.dumps(found.facts))
    else:
        _show(found)
    return 1 if fails(found.facts) else 0


def _show(found: Evaluated) -> None:
    from stageproof.train.evaluate.warning_messages import is_control
    from stageproof.train.reports.calibration_text import calibration_lines, guarantee
    from stageproof.train.reports.formatting import (
        count_heads,
        format_figure,
        metric_rows,
        number,
        patient_count,
        pick,
        positive_classes,
        unit_of,
    )
    from stageproof.train.reports.populations import HEADS, explained
    from stageproof.train.reports.populations import rows as rows_of_populations
    from stageproof.train.reports.terminal import WIDTH, table
    from stageproof.train.runs.record import reported_classes

    facts, classes = found.facts, reported_classes(found.facts)
    metrics = metric_rows(classes)
    for warning in facts["warnings"]:
        print(warning, file=sys.stderr)
    unit = unit_of(facts["data"]) if count_heads(facts["data"]) else ""
    levels = [(name, facts[name]) for name in ("slices", "patients") if facts[name]]
    for name, level in levels:
        total = f"{facts['data'][name]} {name}"
        shown = [(title, format_figure(pick(level, path), share), pick(level, path)) for title, path, share in metrics]
        for label, of_class in level["classes"].items() if len(classes) > 2 else ():  # of two: sensitivity, specificity
            shown.append((f"recall {label}", format_figure(of_class["recall"], True), of_class["recall"]))
        rows = [(title, said, patient_count(figure) if unit else "") for title, said, figure in shown]
        rows.append(("always the largest class", number(level["largest_class"], True), ""))
        print("\n" + "\n".join(table((total, "95 % interval" if unit else "", unit), rows, (31, 39, 8))))
    if said_positive := positive_classes(classes):
        print("\n" + "\n".join(wrap(said_positive, WIDTH)))
    if found_populations := facts["populations"]:
        print("\n" + "\n".join(table(HEADS, rows_of_populations(found_populations), (26, 26, 26))))
        print("\n".join(wrap(explained(found_populations), WIDTH)))
    calibration = facts["calibration"]
    if calibration["after"] and unit:
        print(
            f"\ntemperature {calibration['temperature'] or 1.0:.3f}; calibration on {unit_of(facts['data'])} other "
            "than those it was fitted on:"
        )
        print("\n".join(calibration_lines(calibration, classes)))
    if facts["abstention"]:
        print(guarantee(facts["abstention"]))
    print(f"\nreport {found.out / 'report.html'}")
    if facts["data"]["held_out_by_run"] and not is_control(facts):
        print(f"cards  {found.run / 'MODEL_CARD.md'}, {found.run / 'DATASET_CARD.md'}")
        print(f"\nNext: {command('export', found.run, '--to', 'onnx')}")


if __name__ == "__main__":
    sys.exit(exit_status(main, extra="train"))
