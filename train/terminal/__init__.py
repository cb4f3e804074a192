"""The terminal of a command: messages, progress bars, and those of child processes."""
