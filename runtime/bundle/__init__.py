"""Bundles: manifest, verification of files, signatures and trust."""
