"""Charts of evaluations and training runs, drawn with matplotlib, and images for pages."""
