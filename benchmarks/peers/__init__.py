"""What users would run instead of the Predictor, one module a family, each as its own documentation says is best.

A family's module has

    contenders(given)   the Contenders it can put up here, and a note for each that it cannot
    load(...)           what one of them runs, in its own process; the library is imported there and nowhere earlier

All of them answer the bytes of an image file with the probabilities of the same weights.
"""

from __future__ import annotations

from stageproof.benchmarks.contenders.worker import Contender
from stageproof.benchmarks.peers import aotinductor, compiled, eager, nncf, onnx_runtime, openvino
from stageproof.benchmarks.peers.context import Given

FAMILIES = (eager, compiled, aotinductor, onnx_runtime, openvino, nncf)


def peers(given: Given) -> tuple[list[Contender], list[str]]:
    """Every peer that can run here, the published snippet first, and what is left out with the reason."""
    found: list[Contender] = []
    notes: list[str] = []
    for family in FAMILIES:
        contenders, missing = family.contenders(given)
        found += contenders
        notes += missing
    return found, notes
