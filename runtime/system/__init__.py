"""The operating system: processors, files, work folders, forks."""
