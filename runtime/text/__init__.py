"""Printed text: escaping of untrusted text, and shell-quoted commands for messages."""
