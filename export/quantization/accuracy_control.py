"""Accuracy-aware quantisation: selects the fastest Q/DQ graph that is expected to pass the parity gate.

The expectation comes from the graph's errors on training slices.
"""

from __future__ import annotations

import logging
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

logger = logging.getLogger(__name__)

STEPS = (1, 2, 4, 6, 8, 12, 16, 20, 24)
"""Numbers of most sensitive convolutions that are kept in float32, one candidate graph for each."""
CONFIDENCE = 0.95
"""Probability of passing the gate at which the search stops."""
LEAST_CONFIDENCE = 0.5
"""Minimum probability of passing: if the best candidate has less, it is rejected without running the gate."""
PATIENCE = 3
"""Number of steps without improvement after which the search stops."""


def select_graph(
    inputs: Inputs, graphs: Sequence[ModelProto], original: ModelProto, precision: str
) -> tuple[ModelProto, dict[str, Any]]:
    """(graph, facts): the first of these Q/DQ graphs that is expected to pass the gate; if none is, the most promising
    one with as few convolutions as necessary kept in float32. facts: its calibration and selection data, JSON-ready.

    Activation ranges come from one set of training slices; the float32 layers are selected by the errors on another
    set. The number of changed predictions is estimated by adding these errors to the reference's logits of the gate's
    slices, since a network is more confident on slices it was trained on. The artifact's own logits of the gate's
    slices are not used, so the gate's result is not biased by the selection. The selection uses half of the patients
    whose errors were measured; the reported probability of passing comes from the other half (cross-fitting).

    The head always stays in float32: it is a thousandth of the computation and causes most of the logit error. Raises
    ParityError if no candidate has an even chance of passing, or if not even an artifact without changes could pass.

    graphs: fastest first.
    original: the float32 graph that was quantised.
    precision: ``int8`` or ``fp8``.
    """
    _assert_can_pass(inputs, precision)
    calibration, selection = inputs.calibration, inputs.selection

    def candidate(graph: ModelProto, float_layers: Sequence[str]) -> _Candidate:
        model = with_float_layers(graph, float_layers, original)
        fit_head(model, *few(calibration, FITTING_IMAGES), inputs.threads, precision)
        result = _estimate(inputs, model, len(float_layers))
        kept = f"{len(float_layers)} layers in float32" if float_layers else "all layers quantised"
        additions = ", residual additions in float32" if has_float_additions(model) else ""
        logger.info(f"{precision}, {kept}{additions}: {result.found}")
        return result

    best, full = candidate(graphs[0], ()), graphs[0]
    for graph in graphs[1:]:
        if best.chance < CONFIDENCE and (other := candidate(graph, ())).better_than(best):
            best, full = other, graph
    if best.chance < CONFIDENCE:
        logger.info(f"{precision}: measuring the sensitivity of each layer")
        some = few(calibration, RANKING_IMAGES)
        ranking = rank(full, original, *some, inputs.threads, precision)
        worse = 0
        for step in STEPS:
            if best.chance >= CONFIDENCE or worse >= PATIENCE or step * 2 >= len(layers(full)):
                break
            other = candidate(full, ranking[:step])
            best, worse = (other, 0) if other.better_than(best) else (best, worse + 1)
    if best.chance < LEAST_CONFIDENCE:
        raise ParityError(
            f"{precision} is not expected to pass the gate: {best.found}, estimated from {len(selection.images)} "
            f"training slices, with the {best.step} most sensitive of {len(layers(full))} layers in float32; more did "
            "not help. Use quantisation-aware training, or fp16 or bf16."
        )
    return best.model, {**_facts(inputs, best.model, best.flips), "passes_with_probability": best.stated}


@dataclass(frozen=True)
class _Candidate:
    """A candidate graph with its estimated changes."""

    model: ModelProto
    step: int
    """Number of layers in float32."""
    chance: float
    """Probability of passing the gate in the worst engine, estimated from the patients used for the selection."""
    stated: float
    """The same from the other patients; equal to `chance` if there are too few patients to split."""
    flips: dict[str, float]
    """Engine → expected number of changed predictions."""
    found: str
    """Summary for messages."""

    def better_than(self, other: _Candidate) -> bool:
        """Whether its probability of passing is higher, or, if equal, fewer predictions are expected to change."""
        own, others = ((one.chance, -max(one.flips.values())) for one in (self, other))
        return own > others


def _estimate(inputs: Inputs, model: ModelProto, step: int) -> _Candidate:
    selection, info, gate = inputs.selection, inputs.model, inputs.compared
    answers = inputs.run_in_engines(model, selection.images)
    errors = {name: logits - selection.logits for name, logits in answers.items()}
    changed = {name: changes(gate.logits, rows, info.temperature, info.abstain_below) for name, rows in errors.items()}
    flips = {name: float(each.mean(1).sum()) for name, each in changed.items()}
    patients = selection.people
    half = None if patients is None else two_halves(patients, np.zeros(len(patients), np.int64))

    def worst(part: np.ndarray) -> float:
        measured = None if patients is None else patients[part]
        rule = inputs.flip_tolerance, level(gate.artifacts)
        return min(probability_to_pass(one[:, part], gate.people, measured, *rule) for one in changed.values())

    everyone = np.ones(len(selection.images), bool)
    chance = worst(everyone if half is None else ~half)
    stated = chance if half is None else worst(half)
    expected = ", ".join(f"{flips[name]:.1f} ({name})" for name in flips)
    found = f"{expected} of {len(gate.images)} predictions expected to change, gate passes with probability "
    found += f"{stated:.2f}"
    return _Candidate(model, step, chance, stated, flips, found)


def _assert_can_pass(inputs: Inputs, precision: str) -> None:
    """Raise ParityError if not even an artifact without changed predictions could pass."""
    gate, tolerance = inputs.compared, inputs.flip_tolerance
    none = Counts.of(np.zeros(len(gate.images), bool), gate.people)
    if tolerance and not within(none, tolerance, level(gate.artifacts)):
        raise ParityError(
            f"{precision} was not built: {none.images} images of {none.people} patients cannot show that fewer than "
            f"{tolerance:.1%} of predictions change, even if none does. Give more: --parity-data DIR_OR_PARQUET."
        )


def _facts(inputs: Inputs, model: ModelProto, expected: dict[str, float]) -> dict[str, Any]:
    """Data used to build the graph, JSON-ready; it shows that the gate's images were not used."""
    calibration, selection = inputs.calibration, inputs.selection
    where = public_source(selection.source)
    return {
        "calibrated_on": f"{len(calibration.images)} training slices of {public_source(calibration.source)}",
        "float_layers_chosen_on": f"{len(selection.images)} other training slices of {where}",
        "flips_expected": expected,
        "float_layers": float_layers_of(model),
        "float_additions": has_float_additions(model),
    }
