"""The reference of an export: the float32 PyTorch model of a run, checkpoint or bundle."""
