"""Measurements: ratios within one run, with the raw figures of both sides. `python -m benchmarks.NAME --json FILE`."""
