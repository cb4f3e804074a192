"""The audit of a dataset: leakage, duplicates and patients, before any training."""
