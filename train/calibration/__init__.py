"""Temperature, probability of a study and thresholds of abstention, fitted on patients and assessed on others."""
