"""Periodic tasks of the console: sums, kept clips and frames, purges, and commands of drop policies and switches."""
