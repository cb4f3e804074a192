"""Serving benchmarks: the service beside other servers of the same network, under the same load."""
