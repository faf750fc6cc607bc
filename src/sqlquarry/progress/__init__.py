"""Show the progress of long work on terminals, in notebooks and in log files."""
