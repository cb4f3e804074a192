"""Operating-system functions: CPU limits, regular files, work folders, forks."""
