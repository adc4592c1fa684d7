"""Cameras as people see them: state, picture health, alerts and snapshots."""
