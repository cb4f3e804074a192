"""Inference benchmarks: scenarios, timing, and the rows of the record."""
