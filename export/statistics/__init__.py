"""Confidence bounds on proportions, for independent and for clustered trials."""
