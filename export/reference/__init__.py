"""The reference of an export: the eager float32 network of a run, checkpoint or bundle."""
