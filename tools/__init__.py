"""Programs to run by hand in the repository. The package does not need them."""
