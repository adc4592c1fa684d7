"""The information that an eavesdropper gets about a scene: see `benchmarks.eavesdropper.__main__`."""
