"""Import models and answer as Bedrock does."""
