"""Readers of data: class folders, tables, parquet, predefined splits."""
