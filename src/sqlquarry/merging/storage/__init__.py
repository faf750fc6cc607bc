"""Storage that a merge reads checkpoints from and writes models to: a directory or an S3 prefix."""
