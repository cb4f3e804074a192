"""Run directories: weights, checkpoints, metrics and records."""
