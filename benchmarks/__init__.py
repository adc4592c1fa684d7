"""Measurements: ratios within one run, with both sides' raw figures. `python -m benchmarks.NAME --json FILE`."""
