"""Report a run: progress, tracking services, plot and model card."""
