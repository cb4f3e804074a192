"""Reads weights and checkpoints that other code wrote."""
