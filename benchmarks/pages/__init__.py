"""Pages and tables of figures, made from committed results."""
