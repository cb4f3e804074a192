"""Training benchmarks: throughput of `python -m train` compared with a plain PyTorch loop."""
