"""The inputs of an archive: listed once, read by the workers."""
