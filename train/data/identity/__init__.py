"""Ids of patients, sessions and slices, from tables, names and headers, checked by the pixels."""
