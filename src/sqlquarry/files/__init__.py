"""Find, read, lock and hash the files that every phase shares."""
