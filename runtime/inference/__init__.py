"""From a verified bundle to predictions: selection and loading of an engine, batches, streams, self-test."""
