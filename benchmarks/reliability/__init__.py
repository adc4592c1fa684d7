"""Reliability: drills, faults, fresh clones, other CPUs and mutated code."""
