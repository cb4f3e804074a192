"""Which Q/DQ graph is put to the gate: the fastest that is expected to pass it, by its errors on training slices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.apart import two_halves
from export.changes import level
from export.clustered import Counts, within
from export.expectation import changes, probability_to_pass
from export.job import Evidence, Job
from export.parity import tolerance_for
from export.qdq import float_layers_of, has_float_additions, layers, with_float_layers
from runtime.errors import BackendUnavailable, ParityError
from train.pseudonyms import public_source

if TYPE_CHECKING:
    from onnx import ModelProto

STEPS = (1, 2, 4, 6, 8, 12, 16, 20, 24)
"""How many convolutions, worst first, are put back to float before it is asked again whether the graph holds."""
RANKING_IMAGES = 64
FITTING_IMAGES = 128
CONFIDENCE = 0.95
"""Of the choice: the chance to pass the gate at which no more layers are put back to float."""
LEAST_CONFIDENCE = 0.5
"""Where none has that chance, the best one is put to the gate if it has this, and refused before otherwise."""
PATIENCE = 3
"""So many steps without a better chance end the search."""


def holding(job: Job, graphs: Sequence[ModelProto], original: ModelProto, precision: str) -> ModelProto:
    """The first of these Q/DQ graphs that is expected to pass the gate; if none is, the one that comes closest with as
    few of its convolutions put back to float as it takes.

    Ranges come from one set of training slices, the choice of float layers from the errors on another. How often such
    an error changes a decision is counted at the reference's logits of the gate's slices, since a network is surer of
    slices it was trained on; what the artifact says of those slices has no part in the choice, so that the gate's
    figures do not flatter. The choice is made on half of the people whose errors were measured, and the probability
    that is stated comes from the others (cross-fitting), whom the choice cannot have favoured.

    The head is always float: it is a thousandth of the work and most of the logit error. Raises ParityError when none
    has an even chance to pass, DatasetError when there is nothing to calibrate on.

    graphs: the fastest one first.
    original: the float graph that was quantised.
    precision: ``int8`` or ``fp8``.
    """
    _assert_can_pass(job, precision)
    calibration, selection = job.calibration

    def tried(graph: ModelProto, floated: Sequence[str]) -> _Choice:
        model = with_float_layers(graph, floated, original)
        fit_head(model, *few(calibration, FITTING_IMAGES), job.threads, precision)
        choice = _weighed(job, model, len(floated), selection, precision)
        additions = " and additions" if has_float_additions(model) else ""
        job.say(f"{precision}: {len(floated)} convolutions{additions} in float32: {choice.found}")
        return choice

    best, full = tried(graphs[0], ()), graphs[0]
    for graph in graphs[1:]:
        if best.chance < CONFIDENCE and (choice := tried(graph, ())).better_than(best):
            best, full = choice, graph
    if best.chance < CONFIDENCE:
        job.say(f"{precision}: looking for the layers that hurt most")
        ranking = rank(job, full, original, *few(calibration, RANKING_IMAGES), precision)
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
    facts = {**_facts(job, best.model, best.flips), "passes_with_probability": best.stated}
    _facts_file(job, precision).write_text(json.dumps(facts), encoding="utf-8")
    return best.model


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


def _weighed(job: Job, model: ModelProto, step: int, selection: Evidence, precision: str) -> _Choice:
    from export.formats import onnx

    onnx.describe(model, job.description(precision))
    candidate = job.work / f"candidate.{precision}.onnx"
    candidate.write_bytes(model.SerializeToString())
    errors = _errors(job, candidate, selection, precision)
    info, gate = job.reference.info, job.evidence
    changed = {name: changes(gate.logits, rows, info.temperature, info.abstain_below) for name, rows in errors.items()}
    flips = {name: float(each.mean(1).sum()) for name, each in changed.items()}
    tolerance = tolerance_for(precision, job.options.tolerance, job.options.flip_tolerance).flips
    whose = selection.people
    half = None if whose is None else two_halves(whose, np.zeros(len(whose), np.int64))

    def worst(part: np.ndarray) -> float:
        mine = None if whose is None else whose[part]
        confidence = level(gate.artifacts)
        every = changed.values()
        return min(probability_to_pass(one[:, part], gate.people, mine, tolerance, confidence) for one in every)

    everyone = np.ones(len(selection.images), bool)
    chance = worst(everyone if half is None else ~half)
    stated = chance if half is None else worst(half)
    expected = ", ".join(f"{flips[name]:.1f} ({name})" for name in flips)
    found = f"{expected} of {len(gate.images)} predictions are expected to change; passes with probability {stated:.2f}"
    return _Choice(model, step, chance, stated, flips, found)


def fit_head(model: ModelProto, images: np.ndarray, logits: np.ndarray, threads: int, precision: str = "int8") -> None:
    """Let the last layer, which is float, undo in place what is regular in the errors of those before it.

    The least-squares map from the graph's logits to the reference's, classes by classes, goes into its weights.

    images: (N, C, H, W) float32 training slices.
    logits: (N, classes) float32 of the reference.
    """
    from onnx import numpy_helper

    got = run(model, images, threads, precision)
    design = np.concatenate([got, np.ones((len(got), 1), np.float32)], axis=1).astype(np.float64)
    # Directions in which these logits hardly differ, as when a class is never in question, are left alone.
    change = np.linalg.lstsq(design, logits.astype(np.float64) - got, rcond=1e-4)[0]
    last = next(node for node in model.graph.node if node.output[0] == model.graph.output[0].name)
    assert last.op_type == "Gemm", "every model here ends in a linear layer with a bias"
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    weight, bias = (numpy_helper.to_array(stored[name]).astype(np.float64) for name in last.input[1:3])
    turned = np.eye(len(bias)) + change[:-1].T
    for name, values in zip(last.input[1:3], (turned @ weight, turned @ bias + change[-1]), strict=True):
        stored[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))


def rank(
    job: Job,
    full: ModelProto,
    original: ModelProto,
    images: np.ndarray,
    logits: np.ndarray,
    precision: str = "int8",
) -> list[str]:
    """Names of the quantised layers, the one first whose return to float brings the logits closest to the reference.

    images: (N, C, H, W) float32 training slices, so that the choice is not made on what the gate measures.
    logits: (N, classes) float32 of the reference.
    """
    scores = []
    kept = float_layers_of(full)
    candidates = [name for name in layers(full) if name not in kept]
    for position, name in enumerate(candidates):
        error = run(with_float_layers(full, [name], original), images, job.threads, precision) - logits
        scores.append((float(np.square(error).mean()), position, name))
        if position % 10 == 9:
            job.say(f"{precision}: {position + 1} of {len(candidates)} layers tried")
    return [name for _, _, name in sorted(scores)]


def run(model: ModelProto, images: np.ndarray, threads: int, precision: str = "int8") -> np.ndarray:
    """(N, classes) float32 logits of the graph in ONNX Runtime."""
    import onnxruntime

    from runtime.backends.onnx import WRONG_OPTIMIZERS

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(),
        settings,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=WRONG_OPTIMIZERS.get(precision),
    )
    parts = np.array_split(images, -(-len(images) // 16))
    return np.concatenate([session.run(None, {"images": np.ascontiguousarray(part)})[0] for part in parts])


def _assert_can_pass(job: Job, precision: str) -> None:
    """Raise ParityError where not even an artifact that changes nothing could pass."""
    gate = job.evidence
    tolerance = tolerance_for(precision, job.options.tolerance, job.options.flip_tolerance).flips
    none = Counts.of(np.zeros(len(gate.images), bool), gate.people)
    if tolerance and not within(none, tolerance, level(gate.artifacts)):
        raise ParityError(
            f"{precision} was not tried: {none.images} images of {none.people} patients cannot show that fewer than "
            f"{tolerance:.1%} of predictions change, even if none does. Give more: --parity-data DIR_OR_PARQUET."
        )


def _errors(job: Job, path: Path, evidence: Evidence, precision: str) -> dict[str, np.ndarray]:
    """Backend → (N, classes) float32: its logits of the graph at `path` less the reference's.

    Raises BackendUnavailable where no backend here runs it.
    """
    from export.gate import loaded_in_each, run_in_batches

    skipped: list[str] = []
    backends = loaded_in_each(job, path, "onnx", precision, skipped)
    errors = {name: run_in_batches(backend, evidence.images) - evidence.logits for name, backend in backends}
    if not errors:
        raise BackendUnavailable(". ".join(skipped))
    return errors


def few(evidence: Evidence, count: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `count` images, evenly spread, and their logits."""
    where = np.linspace(0, len(evidence.images) - 1, min(count, len(evidence.images))).astype(int)
    return evidence.images[where], evidence.logits[where]


def facts_of(job: Job, precision: str) -> dict[str, Any] | None:
    """What the graph in this precision was calibrated and chosen on, for the manifest; None where there is none."""
    path = _facts_file(job, precision)
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def _facts_file(job: Job, precision: str) -> Path:
    return job.work / f"{precision}.json"


def _facts(job: Job, model: ModelProto, expected: dict[str, float]) -> dict[str, Any]:
    """JSON-ready: what had a part in the graph, so that nobody need guess whether the gate's images had."""
    calibration, selection = job.calibration
    where = public_source(selection.source)
    return {
        "calibrated_on": f"{len(calibration.images)} training slices of {public_source(calibration.source)}",
        "float_layers_chosen_on": f"{len(selection.images)} other training slices of {where}",
        "flips_expected": expected,
        "float_layers": float_layers_of(model),
        "float_additions": has_float_additions(model),
    }
