"""Audit of a dataset before training: patients, duplicates and leakage."""
