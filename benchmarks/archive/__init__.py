"""`stageproof score` beside loops that users would write, in one run: `python -m benchmarks.archive`."""
