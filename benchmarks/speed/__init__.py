"""Speed: cost of stages, roles and frames as ratios within one run."""
