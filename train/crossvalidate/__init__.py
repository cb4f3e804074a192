"""Cross-validation: every patient predicted by the network that was not trained on them."""
