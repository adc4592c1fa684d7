"""Bundles from a user's own network: read, described, calibrated, tried. The command is `pointillist bundle`."""
