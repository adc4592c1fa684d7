"""The results of 12 attacks of a stranger and 8 of an enrolled camera: `python -m
benchmarks.security.attacks.table`."""
