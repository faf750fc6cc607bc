"""Find, read and check the base model."""
