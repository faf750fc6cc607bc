"""Answer from local weights."""
