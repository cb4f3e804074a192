"""Compares two benchmark records; each row is faster, slower, no slower, or cannot tell."""

from stageproof.benchmarks.compare.verdicts import Comparison, Verdict, compare, fails

__all__ = ["Comparison", "Verdict", "compare", "fails"]
