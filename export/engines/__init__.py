"""Engines that run an artifact while it is checked: loading, latency, processes."""
