"""Answer through Bedrock's foundation models."""
