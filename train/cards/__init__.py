"""Model card and dataset card."""
