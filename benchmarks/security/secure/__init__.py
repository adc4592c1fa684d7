"""The cost of TLS, certificates and access rights: `python -m benchmarks.security.secure [--out
docs/results/secure]`."""
