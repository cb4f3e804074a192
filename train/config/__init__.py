"""Options of a training run: parsing, checks, saving and reading."""
