"""Archives of images scored into parquet files, shard by shard: `python -m serving.archive BUNDLE --in … --out …`."""
