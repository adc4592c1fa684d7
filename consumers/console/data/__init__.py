"""Data of the console: its store, snapshots of the fleet, history, pictures, rules and live streams."""
