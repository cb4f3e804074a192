"""A record as text, Markdown and an HTML page."""
