"""Ids of patients, sessions and slices, from tables, file names and headers, checked against image similarity."""
