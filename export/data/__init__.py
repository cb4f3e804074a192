"""The images of an export: compared on, calibrated on, and what they are drawn from."""
