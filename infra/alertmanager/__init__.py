"""Alertmanager: the receivers, timing and inhibition of alerts."""
