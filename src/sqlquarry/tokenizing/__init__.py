"""Read tokenizer files, special tokens and chat templates."""
