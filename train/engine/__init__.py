"""The training loop, its state, its optimizer and the training session."""
