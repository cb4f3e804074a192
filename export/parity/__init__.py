"""Whether an artifact decides as its reference does: the gate and its figures."""

from stageproof.export.parity.report import TOLERANCES, Parity, Tolerance, compare, tolerance_for

__all__ = ["TOLERANCES", "Parity", "Tolerance", "compare", "tolerance_for"]
