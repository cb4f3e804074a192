"""Inference: selecting and loading an engine, batching, streaming, self-test and tuning."""
