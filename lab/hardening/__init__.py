"""Adversarial training of a user's own network through the defence (`pointillist lab harden`)."""
