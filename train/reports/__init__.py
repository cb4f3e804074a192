"""Pages, figures and sentences of evaluations."""
