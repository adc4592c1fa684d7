"""Attacks of an enrolled camera on a running system: `python -m benchmarks.security.attacks`."""
