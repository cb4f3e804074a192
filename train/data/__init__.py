"""From files to batches: samples, patients, splits, decoding."""
