"""From the images of a request to its answer: the bundle in use, the queue in front of it, and metrics."""
