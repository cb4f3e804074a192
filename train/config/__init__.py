"""Options of a training run: on the command line, checked, and saved with the run."""
