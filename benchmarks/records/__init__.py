"""The record of a benchmark run: its schema, writing, and validated reading."""
