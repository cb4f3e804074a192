"""Evaluation of a run on patients that it was not trained on."""
