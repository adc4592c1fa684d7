"""What runs a network on a CPU: torch itself, or another runtime that the same network is exported to.

`choose` measures at the start which is the fastest here; `engines` does so for what one model needs. Gradients, attacks
and the lab always go through torch.
"""
