"""Strict readers of JSON, NPZ and protobuf, and digests."""
