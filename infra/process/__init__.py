"""A role as a process: its start, environment, metrics server and log lines."""
