"""The measurements of inference: scenarios, rows and the suite."""
