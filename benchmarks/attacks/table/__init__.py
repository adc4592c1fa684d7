"""What 12 attacks of a stranger and 8 of an enrolled camera come to: `python -m benchmarks.attacks.table`."""
