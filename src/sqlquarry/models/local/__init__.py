"""Models that run on local weights."""
