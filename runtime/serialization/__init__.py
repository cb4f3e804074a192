"""Strict parsers for JSON, NPZ and protobuf, and SHA-256 digests."""
