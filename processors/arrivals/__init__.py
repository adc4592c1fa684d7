"""Frames on arrival: their jobs, the partitions in flight, key frames and commits."""
