"""Runs and bundles in repositories of the Hugging Face Hub: their names, access to them, and their download."""
