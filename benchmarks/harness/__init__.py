"""Shared parts of the benchmarks: results, a running system, its Prometheus, webhooks and networks."""
