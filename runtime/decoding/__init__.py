"""Decoding of untrusted images in sandboxed processes."""
