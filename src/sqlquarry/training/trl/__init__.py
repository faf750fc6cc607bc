"""Train with TRL's SFTTrainer instead of our own engine."""
