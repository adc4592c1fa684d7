"""The stages: pure torch functions from frames (B, C, H, W) in [0, 1] to tensors.

A stage has no clock, no log and no global random state: the lab evaluates the same functions that run live.
"""
