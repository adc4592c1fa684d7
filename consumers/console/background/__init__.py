"""Background tasks of the console: kept clips, and the steering of drop ratios."""
