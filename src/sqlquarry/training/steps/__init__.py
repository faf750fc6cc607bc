"""Run the optimizer steps."""
