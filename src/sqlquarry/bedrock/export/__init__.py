"""Convert a checkpoint to the form that the service reads: unchanged weights and metadata in its dialect."""
