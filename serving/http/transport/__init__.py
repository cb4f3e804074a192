"""What arrives over HTTP before it is understood: connections, access, bodies and uploads, within limits."""
