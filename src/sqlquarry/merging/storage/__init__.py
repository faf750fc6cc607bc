"""Where checkpoints are read and merged models are written: a directory or an S3 prefix."""
