"""Whole experiments: commands that write tables and plots into `docs/results`."""
