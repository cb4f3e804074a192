"""Bounds on shares of independent and of clustered trials."""
