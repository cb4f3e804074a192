"""The files of an output: manifest, listing and parts, each written whole or not at all; and the lock of its runner."""
