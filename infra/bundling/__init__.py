"""A bundle from a network of one's own: read, described, calibrated, tried. `pointillist bundle` is its command."""
