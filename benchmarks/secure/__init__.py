"""The cost of TLS, certificates and access rights: `python -m benchmarks.secure [--out docs/results/secure]`."""
