"""Stageproof benchmarks: measures latency and throughput of the Predictor and of alternatives in one run."""

if __name__ == "benchmarks":  # imported by its short name, in a checkout
    from stageproof.checkout import one_module

    one_module(__name__)
