"""Which Q/DQ graph is put to the gate: the fastest that is expected to pass it, by its errors on training slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stageproof.export.data.overlap import two_halves
from stageproof.export.quantization.flip_forecast import changes, probability_to_pass
from stageproof.export.quantization.head_correction import FITTING_IMAGES, fit_head
from stageproof.export.quantization.inputs import Inputs, few
from stageproof.export.quantization.qdq_edit import float_layers_of, has_float_additions, layers, with_float_layers
from stageproof.export.quantization.sensitivity import RANKING_IMAGES, rank
from stageproof.export.statistics.binomial import level
from stageproof.export.statistics.clustered import Counts, within
from stageproof.runtime.errors import ParityError
from stageproof.train.runs.pseudonyms import public_source

if TYPE_CHECKING:
    from onnx import ModelProto

STEPS = (1, 2, 4, 6, 8, 12, 16, 20, 24)
"""How many convolutions, worst first, are put back to float before it is asked again whether the graph holds."""
CONFIDENCE = 0.95
"""Of the choice: the chance to pass the gate at which no more layers are put back to float."""
LEAST_CONFIDENCE = 0.5
"""Where none has that chance, the best one is put to the gate if it has this, and refused before otherwise."""
PATIENCE = 3
"""So many steps without a better chance end the search."""


def holding(
    inputs: Inputs, graphs: Sequence[ModelProto], original: ModelProto, precision: str
) -> tuple[ModelProto, dict[str, Any]]:
    """The first of these Q/DQ graphs that is expected to pass the gate; if none is, the one that comes closest with as
    few of its convolutions put back to float as it takes. With it, JSON-ready, what it was calibrated and chosen on.

    Ranges come from one set of training slices, the choice of float layers from the errors on another. How often such
    an error changes a decision is counted at the reference's logits of the gate's slices, since a network is surer of
    slices it was trained on; what the artifact says of those slices has no part in the choice, so that the gate's
    figures do not flatter. The choice is made on half of the people whose errors were measured, and the probability
    that is stated comes from the others (cross-fitting), whom the choice cannot have favoured.

    The head is always float: it is a thousandth of the work and most of the logit error. Raises ParityError when none
    has an even chance to pass, or not even an artifact that changes nothing could.

    graphs: the fastest one first.
    original: the float graph that was quantised.
    precision: ``int8`` or ``fp8``.
    """
    _assert_can_pass(inputs, precision)
    calibration, selection = inputs.calibration, inputs.selection

    def tried(graph: ModelProto, floated: Sequence[str]) -> _Choice:
        model = with_float_layers(graph, floated, original)
        fit_head(model, *few(calibration, FITTING_IMAGES), inputs.threads, precision)
        choice = _weighed(inputs, model, len(floated))
        additions = " and additions" if has_float_additions(model) else ""
        inputs.say(f"{precision}: {len(floated)} convolutions{additions} in float32: {choice.found}")
        return choice

    best, full = tried(graphs[0], ()), graphs[0]
    for graph in graphs[1:]:
        if best.chance < CONFIDENCE and (choice := tried(graph, ())).better_than(best):
            best, full = choice, graph
    if best.chance < CONFIDENCE:
        inputs.say(f"{precision}: looking for the layers that hurt most")
        some = few(calibration, RANKING_IMAGES)
        ranking = rank(full, original, *some, inputs.threads, inputs.say, precision)
        worse = 0
        for step in STEPS:
            if best.chance >= CONFIDENCE or worse >= PATIENCE or step * 2 >= len(layers(full)):
                break
            choice = tried(full, ranking[:step])
            best, worse = (choice, 0) if choice.better_than(best) else (best, worse + 1)
    if best.chance < LEAST_CONFIDENCE:
        raise ParityError(
            f"{precision} is not expected to pass the gate: by its errors on {len(selection.images)} training slices "
            f"{best.found}, with {best.step} of {len(layers(full))} layers put back to float, the worst first, and "
            "more did not help. Fine-tune with quantisation, or use fp16 or bf16."
        )
    return best.model, {**_facts(inputs, best.model, best.flips), "passes_with_probability": best.stated}


@dataclass(frozen=True)
class _Choice:
    """One graph of those that may be put to the gate."""

    model: ModelProto
    step: int
    """Convolutions in float."""
    chance: float
    """To pass the gate, in the engine that is worst at it, by the people that the choice is made on."""
    stated: float
    """The same by the other people; `chance` where there are too few to halve."""
    flips: dict[str, float]
    """Engine → decisions expected to change."""
    found: str
    """In words."""

    def better_than(self, other: _Choice) -> bool:
        """By its chance; where neither has any, by the decisions that change."""
        mine, others = ((one.chance, -max(one.flips.values())) for one in (self, other))
        return mine > others


def _weighed(inputs: Inputs, model: ModelProto, step: int) -> _Choice:
    selection, info, gate = inputs.selection, inputs.model, inputs.compared
    answers = inputs.run_in_engines(model, selection.images)
    errors = {name: logits - selection.logits for name, logits in answers.items()}
    changed = {name: changes(gate.logits, rows, info.temperature, info.abstain_below) for name, rows in errors.items()}
    flips = {name: float(each.mean(1).sum()) for name, each in changed.items()}
    whose = selection.people
    half = None if whose is None else two_halves(whose, np.zeros(len(whose), np.int64))

    def worst(part: np.ndarray) -> float:
        mine = None if whose is None else whose[part]
        rule = inputs.flip_tolerance, level(gate.artifacts)
        return min(probability_to_pass(one[:, part], gate.people, mine, *rule) for one in changed.values())

    everyone = np.ones(len(selection.images), bool)
    chance = worst(everyone if half is None else ~half)
    stated = chance if half is None else worst(half)
    expected = ", ".join(f"{flips[name]:.1f} ({name})" for name in flips)
    found = f"{expected} of {len(gate.images)} predictions are expected to change; passes with probability {stated:.2f}"
    return _Choice(model, step, chance, stated, flips, found)


def _assert_can_pass(inputs: Inputs, precision: str) -> None:
    """Raise ParityError where not even an artifact that changes nothing could pass."""
    gate, tolerance = inputs.compared, inputs.flip_tolerance
    none = Counts.of(np.zeros(len(gate.images), bool), gate.people)
    if tolerance and not within(none, tolerance, level(gate.artifacts)):
        raise ParityError(
            f"{precision} was not tried: {none.images} images of {none.people} patients cannot show that fewer than "
            f"{tolerance:.1%} of predictions change, even if none does. Give more: --parity-data DIR_OR_PARQUET."
        )


def _facts(inputs: Inputs, model: ModelProto, expected: dict[str, float]) -> dict[str, Any]:
    """JSON-ready: what had a part in the graph, so that nobody need guess whether the gate's images had."""
    calibration, selection = inputs.calibration, inputs.selection
    where = public_source(selection.source)
    return {
        "calibrated_on": f"{len(calibration.images)} training slices of {public_source(calibration.source)}",
        "float_layers_chosen_on": f"{len(selection.images)} other training slices of {where}",
        "flips_expected": expected,
        "float_layers": float_layers_of(model),
        "float_additions": has_float_additions(model),
    }
