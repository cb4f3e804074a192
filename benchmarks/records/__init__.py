"""The record of a run: schema, and reading with checks."""
