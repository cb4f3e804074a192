"""Loads the reference that the options of an export select."""

from __future__ import annotations

from collections.abc import Sequence

from stageproof.export.options import Options
from stageproof.export.reference.checkpoint import Described
from stageproof.export.reference.from_bundle import reference_of
from stageproof.export.reference.graph_file import from_file
from stageproof.export.reference.graph_source import kind_of
from stageproof.export.reference.model import Reference, from_run, run_of_weights
from stageproof.runtime.errors import InputError
from stageproof.train.foreign.class_order import given_labels
from stageproof.train.runs.finding import newest_run


def load_reference(options: Options) -> Reference:
    """The reference from the run or checkpoint in the options, or from the newest run.

    Raises CheckpointError if it cannot be loaded, InputError for options that differ from what the run records.
    """
    source = options.source or newest_run()
    if options.rebuild:
        return reference_of(options.out, source, options.checkpoint_key, options.trust_code)
    if not source.is_dir() and not options.checkpoint_key and kind_of(source) is None:
        source = run_of_weights(source) or source
    given = given_labels(options.labels, options.classes, options.positive)
    if not source.is_dir():
        return from_file(source, Described.by(options, given))
    reference = from_run(source)
    info, spec = reference.info, reference.info.input
    own: list[tuple[str, Sequence[object], Sequence[object]]] = [
        ("--labels", given.labels, info.labels),
        ("--classes", given.classes.names if given.classes else (), info.classes.names),
        ("--positive", given.classes.positive if given.positive and given.classes else (), info.classes.positive),
        ("--mean", options.mean, spec.mean),
        ("--std", options.std, spec.std),
        ("--checkpoint-key", (options.checkpoint_key,) if options.checkpoint_key else (), ("no key",)),
    ]
    for option, value, recorded in own:
        if value and tuple(value) != tuple(recorded):
            raise InputError(
                f"{option} is {' '.join(map(str, value))}, but {source} was trained with "
                f"{' '.join(map(str, recorded))}. Leave {option} out: it is only for checkpoints saved by other code."
            )
    return reference
