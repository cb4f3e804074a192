"""The contenders of a benchmark: the Predictor, its engine and the peers, each in a separate process."""
