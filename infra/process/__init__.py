"""A role as a process: its start, metrics server, log lines, tracing, certificates and exit statuses."""
