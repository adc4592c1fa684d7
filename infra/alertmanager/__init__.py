"""Alertmanager: who is told of which alerts, when, and what is left out because it follows from something else."""
