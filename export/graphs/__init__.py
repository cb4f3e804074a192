"""Builds ONNX graphs of the reference, in float32 and half precision."""
