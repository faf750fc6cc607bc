"""Report a run: progress, trackers, plot and model card."""
