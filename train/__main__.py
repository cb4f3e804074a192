"""`python -m train`: train on phantoms, or on --data."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stageproof.runtime.cli.exit_status import exit_status, print_status, report_error
from stageproof.runtime.cli.extras import require
from stageproof.runtime.errors import StageproofError
from stageproof.runtime.text.hints import command
from stageproof.train.config.preconditions import PACKAGES, check_training

if TYPE_CHECKING:
    from stageproof.train.config.options import Options


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 trained, or stopped as asked with a checkpoint; 1 the run failed; 2 invalid input."""
    options: Options | None = None
    try:
        require("train", *PACKAGES)
        from stageproof.train.config.command_line import parse
        from stageproof.train.runs.finding import remember

        options = parse(argv)
        check_training(options, print_status)
        from stageproof.train.distributed.rendezvous import check_network
        from stageproof.train.engine.loop import Interrupted
        from stageproof.train.launch import is_leader, launch

        if (warning := check_network(options.trust_network)) and is_leader():
            print_status(warning)
        if options.out is not None and is_leader():
            remember(options.out)
        try:
            run, record = launch(options)
        except Interrupted as stopped:
            if is_leader():
                again = command("train", "--resume", "--out", stopped)
                print(f"Stopped, with a checkpoint. Next: {again}", file=sys.stderr)
            return 0
    except StageproofError as error:
        return report_error(error)
    except KeyboardInterrupt:
        print_status(_interrupted(options))
        return 1
    if is_leader():
        _show(run, record, as_json=options.json)
    return 0


def _interrupted(options: Options | None) -> str:
    """What is left after an interruption that no step of training followed."""
    from stageproof.train.runs.unfinished import has_checkpoint, partial_folder

    if options is not None and options.out is not None and has_checkpoint(partial_folder(options.out)):
        again = command("train", "--resume", "--out", options.out)
        return f"Interrupted before a step; the last checkpoint is kept. Next: {again}"
    return "Interrupted before the first step; nothing was kept."


def _show(run: Path, record: dict[str, Any], *, as_json: bool) -> None:
    figures = record["metrics"]
    if as_json:
        print(json.dumps({"run": str(run), **figures}))
        return
    print(f"run                 {run}")
    control = record["split"]["shuffled_labels"] is not None
    if control:
        print("CONTROL: trained on shuffled labels; balanced accuracy should be at chance, and nothing be made of it.")
    print(f"validation slices   {figures['accuracy']:.1%} of {figures['slices']} right")
    if "patient_accuracy" in figures:
        print(f"validation patients {figures['patient_accuracy']:.1%} of {figures['patients']} right")
    units = "groups" if record["data"]["verdict"] == "groups" else "patients"
    present = sum(recall is not None for recall in figures["recall"].values())
    if present:
        print(
            f"balanced accuracy   {figures['balanced_accuracy']:.1%} (mean recall over {present} classes measured; "
            f"chance is {1 / present:.0%})"
        )
    for name in record["split"]["not_estimable"]:
        print(f"not estimable       {name}: it has fewer {units} than there are folds")
    print(f"always answering the largest class would score {figures['largest_class']:.1%}")
    leaked = record["split"]["leaked"]
    if leaked is None:
        bound = record["split"]["leaked_at_least"]
        print("PATIENTS UNKNOWN: no figure here is about new patients. One person may be in training and validation.")
        if bound and bound >= 0.005:
            print(f"LEAKAGE: at least {math.floor(100 * bound)}% of the test slices of a random split of this data")
            print("show a head that is in training too.")
        print(f"Give the ids: {command('train.audit', '--data', record['options']['data'])} says how.")
    elif leaked:
        what = "are of a group that" if units == "groups" else "show a patient who"
        print(f"LEAKAGE: {leaked:.0%} of the validation slices {what} is in training too.")
        print("These figures say nothing about new patients. Use --split patient.")
    print(f"\nNext: {command('train.evaluate', run)}")
    if not control:
        print(f"      {command('export', run, '--to', 'onnx')}")


if __name__ == "__main__":
    sys.exit(exit_status(main, extra="train"))
