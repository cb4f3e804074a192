"""Reports of evaluations, and what all reports share: templates, stylesheet, tables."""
