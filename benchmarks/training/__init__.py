"""Training throughput beside a plain PyTorch loop."""
