"""Measures and describes the machine: peak performance, load, hardware and versions."""
