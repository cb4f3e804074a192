"""Temperature scaling, study rule and abstention thresholds, and their evaluation on other patients."""
