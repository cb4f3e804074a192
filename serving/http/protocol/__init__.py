"""The Open Inference Protocol, version 2: requests and responses in JSON, with binary tensors, and in gRPC."""
