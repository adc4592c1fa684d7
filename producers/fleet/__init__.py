"""Many cameras in one process: simulated, or listed in a file."""
