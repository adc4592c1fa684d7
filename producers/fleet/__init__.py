"""The cameras of one process: simulated, listed in a file, or a single attached one."""
