"""`python -m train`: train a classifier on the images of --data, or on synthetic slices (phantoms)."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stageproof.runtime.cli.exit_status import exit_status, report_error
from stageproof.runtime.cli.extras import require
from stageproof.runtime.errors import StageproofError
from stageproof.runtime.text.hints import command
from stageproof.train.config.preconditions import PACKAGES, check_training
from stageproof.train.terminal.messages import shown

logger = logging.getLogger("stageproof.train")  # __name__ is __main__ under python -m

if TYPE_CHECKING:
    from stageproof.train.config.options import Options


@shown()
def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 trained, or stopped by a signal after writing a checkpoint; 1 the run failed; 2 invalid input."""
    options: Options | None = None
    try:
        require("train", *PACKAGES)
        from stageproof.train.config.command_line import parse
        from stageproof.train.repeat.sequence import planned, repeat
        from stageproof.train.runs.finding import remember

        options = parse(argv)
        if options.show_config:
            from stageproof.train.config.show import as_yaml

            print(as_yaml(options), end="")
            return 0
        runs = planned(options) if options.repeat > 1 else []
        if not runs:
            check_training(options)
        from stageproof.train.distributed.rendezvous import check_network
        from stageproof.train.engine.loop import Interrupted
        from stageproof.train.launch import is_leader, launch

        if (warning := check_network(options.trust_network)) and is_leader():
            logger.warning(warning)
        if options.out is not None and is_leader():
            for run, _ in runs or [(options.out, None)]:
                remember(run)
        try:
            if runs:
                assert options.out is not None, "checked by planned"
                facts = repeat(runs, options.out, launch, is_leader())
            else:
                run, record = launch(options)
        except Interrupted as stopped:
            if is_leader():
                again = command("train", "--resume", "--out", stopped)
                if runs:
                    again = f"the same command with --resume ({options.out})"
                logger.info(f"Stopped after writing a checkpoint. Resume with: {again}")
            return 0
    except StageproofError as error:
        return report_error(error)
    except KeyboardInterrupt:
        logger.info(_interrupted(options))
        return 1
    if runs and facts is not None:
        _show_repeated(facts, options)
    elif is_leader():
        _show(run, record, as_json=options.json)
    return 0


def _interrupted(options: Options | None) -> str:
    """The message after an interrupt that arrived outside of a training step."""
    from stageproof.train.runs.unfinished import has_checkpoint, partial_folder

    if options is not None and options.repeat > 1:
        return "Interrupted. Finished runs and checkpoints were kept: run the same command with --resume."
    if options is not None and options.out is not None and has_checkpoint(partial_folder(options.out)):
        again = command("train", "--resume", "--out", options.out)
        return f"Interrupted between steps; the last checkpoint was kept. Resume with: {again}"
    return "Interrupted before the first step; nothing was written."


def _show_repeated(facts: dict[str, Any], options: Options) -> None:
    if options.json:
        print(json.dumps(facts))
        return
    from stageproof.train.repeat.sequence import FACTS, PAGE
    from stageproof.train.repeat.summary import lines

    assert options.out is not None, "checked by planned"
    print("\n".join(lines(facts)))
    print(f"\nreport  {options.out / PAGE}\nfigures {options.out / FACTS}")


def _show(run: Path, record: dict[str, Any], *, as_json: bool) -> None:
    figures = record["metrics"]
    if as_json:
        print(json.dumps({"run": str(run), **figures}))
        return
    print(f"run                 {run}")
    control = record["split"]["shuffled_labels"] is not None
    if control:
        print("CONTROL: trained on shuffled labels. Balanced accuracy should be at chance. Do not use this model.")
    print(f"validation slices   {figures['accuracy']:.1%} of {figures['slices']} correct")
    if "patient_accuracy" in figures:
        print(f"validation patients {figures['patient_accuracy']:.1%} of {figures['patients']} correct")
    units = "groups" if record["data"]["verdict"] == "groups" else "patients"
    present = sum(recall is not None for recall in figures["recall"].values())
    if present:
        print(
            f"balanced accuracy   {figures['balanced_accuracy']:.1%} (mean recall of {present} classes; chance level "
            f"{1 / present:.0%})"
        )
    for name in record["split"]["not_estimable"]:
        print(f"not estimable       {name}: fewer {units} than folds")
    print(f"majority class      {figures['largest_class']:.1%} (accuracy of always predicting the largest class)")
    leaked = record["split"]["leaked"]
    if leaked is None:
        bound = record["split"]["leaked_at_least"]
        print("PATIENTS UNKNOWN: the same patient may appear in both training and validation, so these metrics do not")
        print("estimate performance on new patients.")
        if bound and bound >= 0.005:
            print(f"LEAKAGE: in a random split of this data, at least {math.floor(100 * bound)}% of the test slices")
            print("show a patient who is also in training.")
        print(f"How to supply patient ids: {command('train.audit', '--data', record['options']['data'])}")
    elif leaked:
        what = "belong to a group that" if units == "groups" else "show a patient who"
        print(f"LEAKAGE: {leaked:.0%} of the validation slices {what} is also in training.")
        print("These metrics do not estimate performance on new patients. Use --split patient.")
    print(f"\nNext: {command('train.evaluate', run)}")
    if not control:
        print(f"      {command('export', run, '--to', 'onnx')}")


if __name__ == "__main__":
    sys.exit(exit_status(main, extra="train"))
