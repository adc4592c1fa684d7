"""Attacks on a running system, each a module with `attack(folder) -> Outcome`.

Run them with `python -m benchmarks.security.attacks --json docs/results/trunk/attacks.json`.
"""
