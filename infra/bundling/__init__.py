"""Bundles: made from a user's own network by `pointillist bundle`, and published to the processors of a system."""
