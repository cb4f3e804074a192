"""Repeated training with different seeds on the same data and split, and a summary over the runs."""
