"""Data of the console: its store, snapshots of the fleet, alerts, history, pictures, rules and live streams."""
