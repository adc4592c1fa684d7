"""Scale: many cameras, large frames and long histories."""
