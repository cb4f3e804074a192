"""Shared parts of the commands: exit statuses, paths, output as text, JSON and CSV."""
