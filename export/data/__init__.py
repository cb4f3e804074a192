"""The images of an export: comparison images, calibration images, and the data sets they are sampled from."""
