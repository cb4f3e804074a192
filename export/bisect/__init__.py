"""The first layer at which an artifact differs from its reference."""
