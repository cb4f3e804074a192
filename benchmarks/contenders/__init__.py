"""What is measured: the Predictor, its engine and the peers, each in a process of its own."""
