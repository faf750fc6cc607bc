"""Encode records and pack them into rows of tokens."""
