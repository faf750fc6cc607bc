"""Run queries on databases, read-only, in processes with limits on time and memory."""
