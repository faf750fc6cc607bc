"""Models imported into Bedrock."""
