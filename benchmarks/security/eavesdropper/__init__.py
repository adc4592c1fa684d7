"""The information that an eavesdropper gets about a scene: see `benchmarks.security.eavesdropper.__main__`."""
