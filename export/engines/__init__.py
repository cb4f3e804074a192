"""Runs artifacts during an export: loads them in each backend, measures latency, isolates processes."""
