"""Locate, read, write, lock and hash files for all phases."""
