"""Frames on arrival: partitions in flight, validation, key frames and commits."""
