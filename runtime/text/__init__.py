"""Text that is printed: escaped, and commands quoted for a shell."""
