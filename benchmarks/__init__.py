"""Stageproof benchmarks: how fast the Predictor answers, beside what users would run instead, in one run."""
