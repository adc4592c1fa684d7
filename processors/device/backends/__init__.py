"""Backends that run a network on a CPU: torch, or another runtime to which the same network is exported.

`choose` measures at the start which backend is the fastest here; `engines` does that for the networks of one model.
Gradients, attacks and the lab always use torch.
"""
