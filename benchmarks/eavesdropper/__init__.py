"""What an eavesdropper sees of a scene: see `benchmarks.eavesdropper.__main__`."""
