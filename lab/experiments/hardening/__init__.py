"""The measured effect of hardening: `docs/results/hardening`."""
