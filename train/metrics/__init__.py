"""Figures of a classifier over slices and patients, with intervals."""
