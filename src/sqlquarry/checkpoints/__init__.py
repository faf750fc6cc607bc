"""Read and check model directories in Hugging Face's layout, without loading any tensor."""
