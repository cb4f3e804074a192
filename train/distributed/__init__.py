"""Distributed training: several processes train one network with data parallelism."""
