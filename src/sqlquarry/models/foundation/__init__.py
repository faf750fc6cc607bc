"""Foundation models on Bedrock."""
