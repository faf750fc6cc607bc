"""Show how far long work is: on terminals, in notebooks and in log files."""
