"""Programs that are run by hand in the repository; the package does not need them."""
