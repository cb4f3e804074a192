"""Stageproof benchmarks: how fast the Predictor answers, beside what users would run instead, in one run."""

if __name__ == "benchmarks":  # the short name, in a checkout
    from stageproof.checkout import one_module

    one_module(__name__)
