"""Poisoned training: triggers, poisoned sets, and the backdoored models for evaluating detection and repair."""
