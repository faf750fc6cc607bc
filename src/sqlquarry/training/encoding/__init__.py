"""Turn records into packed rows of tokens."""
