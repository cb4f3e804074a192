"""What the commands share: exit statuses, paths, output as text, JSON and CSV."""
