"""The schedule and the motion gate of a camera."""
