"""The report of an output: one HTML page without names of inputs or patients, which loads nothing."""
