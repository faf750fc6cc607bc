"""What an account has around Bedrock: a role, simulated policies and quotas."""
