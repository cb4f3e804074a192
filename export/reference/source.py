"""The reference that the options of an export name."""

from __future__ import annotations

from stageproof.export.options import ARCHITECTURE, IMAGE_SIZE, Options
from stageproof.export.reference.from_bundle import reference_of
from stageproof.export.reference.model import Reference, from_checkpoint, from_run, run_of_weights
from stageproof.runtime.errors import InputError
from stageproof.train.foreign.class_order import given_labels
from stageproof.train.runs.finding import newest_run


def load_reference(options: Options) -> Reference:
    """The run or checkpoint that the options name, or the newest run.

    Raises CheckpointError for what cannot be loaded, and InputError for labels, mean or std that are not the run's.
    """
    source = options.source or newest_run()
    if options.rebuild:
        return reference_of(options.out, source)
    if not source.is_dir():
        source = run_of_weights(source) or source
    if not source.is_dir():
        architecture, size = options.architecture or ARCHITECTURE, options.image_size or IMAGE_SIZE
        return from_checkpoint(source, architecture, size, options.labels, options.mean, options.std)
    reference = from_run(source)
    labels, spec = reference.info.labels, reference.info.input
    given = (given_labels(options.labels) or labels, options.mean or spec.mean, options.std or spec.std)
    pairs = zip(("--labels", "--mean", "--std"), given, (labels, spec.mean, spec.std), strict=True)
    for option, value, own in pairs:
        if tuple(value) != tuple(own):
            raise InputError(
                f"{option} is {' '.join(map(str, value))}, and {source} was trained with {' '.join(map(str, own))}. A "
                f"run knows its own: leave {option} out. It is for checkpoints that other code saved."
            )
    return reference
