"""A bundle behind HTTP and gRPC: the Open Inference Protocol, uploads, metrics. `python -m serving.http BUNDLE`."""
