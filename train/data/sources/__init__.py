"""Data sources: class folders, CSV tables, parquet files and predefined splits."""
