"""Certified labels of a bundle on labelled pictures."""
