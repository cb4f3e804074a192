"""What a run found: its record, figures with intervals, verdicts on the aims, and tables."""
