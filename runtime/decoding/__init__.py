"""Decoding in processes that the kernel limits."""
