"""`python -m train`: train on phantoms, or on --data."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from runtime.errors import CheckpointError, DatasetError, InputError, NeuroStageError
from train.options import parse


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 trained, 1 the run had to stop, 2 what it was given cannot be used."""
    options = parse(argv)
    from train.run import train

    try:
        run, record = train(options)
    except NeuroStageError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2 if isinstance(error, (InputError, DatasetError, CheckpointError)) else 1
    except KeyboardInterrupt:
        print("Interrupted; nothing was kept.", file=sys.stderr)
        return 1
    figures = record["metrics"]
    if options.json:
        print(json.dumps({"run": str(run), **figures}))
        return 0
    print(f"run                 {run}")
    print(f"validation slices   {figures['accuracy']:.1%} of {figures['slices']} right")
    print(f"validation patients {figures['patient_accuracy']:.1%} of {figures['patients']} right")
    print(f"balanced accuracy   {figures['balanced_accuracy']:.1%} (mean recall over the classes; chance is 25 %)")
    print(f"always answering the largest class would score {figures['largest_class']:.1%}")
    if leaked := record["split"]["leaked"]:
        print(f"LEAKAGE: {leaked:.0%} of the validation slices show a patient who is in training too.")
        print("These figures say nothing about new patients. Use --split patient.")
    print("\nNext: python -m export --to onnx")
    return 0


if __name__ == "__main__":
    sys.exit(main())
