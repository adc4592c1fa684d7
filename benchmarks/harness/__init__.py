"""Shared parts of benchmarks and tests: results, a running system, servers, a recorder's store, webhooks, networks."""
