"""Loads the reference that the options of an export select."""

from __future__ import annotations

from stageproof.export.options import ARCHITECTURE, IMAGE_SIZE, Options
from stageproof.export.reference.from_bundle import reference_of
from stageproof.export.reference.model import Reference, from_checkpoint, from_run, run_of_weights
from stageproof.runtime.errors import InputError
from stageproof.train.foreign.class_order import given_labels
from stageproof.train.runs.finding import newest_run


def load_reference(options: Options) -> Reference:
    """The reference from the run or checkpoint in the options, or from the newest run.

    Raises CheckpointError if it cannot be loaded, InputError for labels, mean or std that differ from the run's.
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
                f"{option} is {' '.join(map(str, value))}, but {source} was trained with {' '.join(map(str, own))}. "
                f"Leave {option} out: it is only for checkpoints saved by other code."
            )
    return reference
