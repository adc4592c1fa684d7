"""Attacks on a running system, each a module with `attack(folder) -> Outcome`.

`python -m benchmarks.attacks --json docs/results/trunk/attacks.json` runs them.
"""
