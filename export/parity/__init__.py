"""The parity gate: compares an artifact's predictions with its reference's and decides whether they agree enough."""

from stageproof.export.parity.report import TOLERANCES, Parity, Tolerance, compare, tolerance_for

__all__ = ["TOLERANCES", "Parity", "Tolerance", "compare", "tolerance_for"]
