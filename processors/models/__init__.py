"""Models: the live model, its store, trust and replacement."""
