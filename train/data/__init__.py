"""Training data: reading, patient ids, splits, decoding and batches."""
