"""Pixels on the wire: masks, packing and codebooks."""
