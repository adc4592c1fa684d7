"""Networks that the shipped bundles name as their factory."""
