"""A bundle: its manifest, and whether its files are what the export wrote."""
