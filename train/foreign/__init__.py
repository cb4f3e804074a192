"""Weights and checkpoints that other code wrote."""
