"""The stages: pure torch functions from frames (B, C, H, W) in [0, 1] to tensors.

A stage has no clock, no log and no global random state, so the lab evaluates the very functions that run
live.
"""
