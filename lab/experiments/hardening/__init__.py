"""Measurements of the hardened networks."""
