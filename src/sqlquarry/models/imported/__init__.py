"""Answer through models imported into Bedrock."""
