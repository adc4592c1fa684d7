"""Simulated cameras: scenario, faults and the red team."""
