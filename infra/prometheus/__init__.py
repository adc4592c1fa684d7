"""Prometheus: the alert rules, their tests, and the page of runbooks that it serves."""
