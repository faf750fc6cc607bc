"""What a checkpoint looks like on S3: weights as they are, and metadata in the dialect of the service."""
