"""Metrics of a classifier over slices and patients, with confidence intervals."""
