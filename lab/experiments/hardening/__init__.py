"""What hardening gives, measured: `docs/results/hardening`."""
