"""What TLS, certificates and rights cost: `python -m benchmarks.secure [--out docs/results/secure]`."""
