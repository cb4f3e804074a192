"""Finds the first layer whose output differs between an artifact and its reference."""
