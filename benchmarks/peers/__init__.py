"""Peers: other ways to run the same model, one module per library, each with the settings its documentation recommends.

A peer module has

    contenders(context)   the Contenders available here, and a note for each that is not
    load(...)             creates the contender in its own process; the library is imported only there

All peers take the bytes of an image file and return the probabilities of the same weights.
"""

from __future__ import annotations

from stageproof.benchmarks.contenders.worker import Contender
from stageproof.benchmarks.peers import aotinductor, compiled, eager, nncf, onnx_runtime, openvino
from stageproof.benchmarks.peers.context import PeerContext

FAMILIES = (eager, compiled, aotinductor, onnx_runtime, openvino, nncf)


def peers(context: PeerContext) -> tuple[list[Contender], list[str]]:
    """(contenders that can run here, the published snippet first; notes on those that cannot, with the reason)."""
    found: list[Contender] = []
    notes: list[str] = []
    for family in FAMILIES:
        contenders, missing = family.contenders(context)
        found += contenders
        notes += missing
    return found, notes
