"""Which networks train and export to which formats: `python -m benchmarks.networks`."""
